"use strict";
const $ = (query, within = document) => within.querySelector(query);
const all = (query, within = document) => [...within.querySelectorAll(query)];
const D = JSON.parse($("#data").textContent); // what report.py wrote
const S = {}; // what the controls say
class Refusal extends Error {} // what a choice does not allow, said in place of a figure

const sum = (values) => values.reduce((a, b) => a + b, 0);
const least = (values) => values.reduce((a, b) => Math.min(a, b));
const most = (values) => values.reduce((a, b) => Math.max(a, b));
const floats = (text) => {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i); // five times as fast as Uint8Array.from
  return new Float32Array(bytes.buffer);
};
const rows = (flat, C) => Array.from({ length: flat.length / C }, (_, i) => flat.subarray(i * C, (i + 1) * C));
const short = (x) => (Number.isFinite(x) ? String(Number(x.toPrecision(3))) : "–");
const percent = (x) => (Number.isFinite(x) ? `${(100 * x).toFixed(1)}%` : "–");
const brief = (name, most = 60) => (name.length > most ? `${name.slice(0, most - 1)}…` : name);
const esc = (name) => String(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

for (const run of D.runs) {
  Object.assign(run, D.tables[run.table]); // name of each class, its group and count
  run.C = run.names.length;
  for (const key of ["pos", "neg", "ap"]) run[key] = rows(floats(run[key]), run.C); // (E, C)
  run.whole = [run.pos, run.neg].map((table) => run.names.map((_, c) => sum(table.map((row) => row[c]))));
  run.last = run.ap.findLast((row) => row.some(Number.isFinite)) ?? run.ap.at(-1);
  run.lengths = run.steps.map((step, e) => step - (run.steps[e - 1] ?? 0));
}

/** The weights of ltml.DynamicGradientBalancing for magnitudes G, positives and then negatives. */
function balance(G, strength, maxWeight) {
  const T = sum(G) / G.length;
  if (!(T > 0)) return G.map(() => 1);
  const w = G.map((g) => Math.min(Math.max((T / g) ** strength, 1 / maxWeight), maxWeight));
  const scale = T / (sum(w.map((x, i) => x * G[i])) / G.length); // the total gradient as it was
  return w.map((x) => x * scale);
}

/** A field of every class's gradient, in one epoch (from 1; at most the last) or the whole run (0). */
function gradient(run, field, epoch) {
  const e = Math.min(epoch, run.steps.length) - 1;
  const [up, down] = epoch ? [run.pos[e], run.neg[e]] : run.whole;
  const of = { positive: (u) => u, negative: (u, d) => d, total: (u, d) => u + d, ratio: (u, d) => u / d };
  return Array.from(up, (u, c) => of[field](u, down[c]));
}

/** What the hover text of each class tells, as card() in plots/live.py. */
function card(run, epoch = 0) {
  const [up, down] = ["positive", "negative"].map((field) => gradient(run, field, epoch));
  const ap = epoch ? run.ap[Math.min(epoch, run.steps.length) - 1] : run.last;
  return run.names.map((_, c) => [run.group[c], run.count[c], percent(ap[c]), short(up[c]), short(down[c])]);
}

// The figures: laid out by plots/live.py, filled with numbers here -------------------------------

const isDark = () => (document.documentElement.dataset.theme ??
  (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
const DARK = { "#3B3B3B": "#E0E0E0", "#00527A": "#8C9BFF", "#56B4E9": "#35C4C4", "#B33F00": "#FF8A4C", "#0072B2": "#4AA3D8",
  "#1F78A8": "#5FD6D6", "#8A6100": "#F0C766", "rgba(255,255,255,": "rgba(29,32,35," };
const DARK_SCALES = { log: ["#B79CF0", "#202326", "#FFB45E"], cosine: ["#FF7F6E", "#202326", "#6CB8FF"] };

function copy(figure) {
  let text = JSON.stringify(figure);
  if (isDark()) for (const [light, dark] of Object.entries(DARK)) text = text.replaceAll(light, dark);
  const out = JSON.parse(text);
  for (const trace of out.data.filter((t) => isDark() && DARK_SCALES[t.meta?.field]))
    trace.colorscale = DARK_SCALES[trace.meta.field].map((color, i) => [i / 2, color]);
  return out;
}

/** The chosen run, or two; and a figure with a panel, or marks, for each. */
function pair(name, needsGradient = false) {
  const runs = [...new Set([S.a, S.b].filter((i) => i >= 0))].map((i) => D.runs[i]);
  if (runs.length > 1 && [...runs[0].names].sort().join("\n") !== [...runs[1].names].sort().join("\n"))
    throw new Refusal(`${runs[0].title} and ${runs[1].title} have different classes; compare runs of the same data.`);
  const kept = needsGradient ? runs.filter((run) => run.trained && run.said.length) : runs;
  if (!kept.length) throw new Refusal(`${runs[0].title} was not trained step by step (or recorded no gradients); choose another run.`);
  runs.splice(0, runs.length, ...kept);
  const figure = copy(D.figures[name][runs.length - 1]);
  (figure.layout.annotations ?? []).forEach((title, row) => { title.text = esc(brief(runs[row].title)); });
  return { runs, figure, both: runs.map((run) => run.title).join(" and ") };
}

/** Give the marks of classes their places; values(meta of the trace, run) are their heights. */
function fill(figure, runs, values, hover) {
  for (const trace of figure.data) {
    const run = runs[trace.meta.row];
    Object.assign(trace, { x: run.names.map(esc), y: values(trace.meta, run), customdata: hover(run) });
    trace.marker.size = run.C <= 40 ? 9 : run.C <= 200 ? 6 : 4;
  }
}

/** Order the class axis, shade its groups, point out the chosen class. */
function classAxis({ layout }, { names, group }, order = names) {
  const axes = Object.keys(layout).filter((key) => key.startsWith("xaxis"));
  for (const axis of axes.map((key) => layout[key]))
    Object.assign(axis, { categoryarray: order.map(esc), range: [-0.6, order.length - 0.4], nticks: innerWidth / 28,
      dtick: order.length < innerWidth / 22 ? 1 : undefined });
  const groupOf = new Map(names.map((name, c) => [name, group[c]]));
  for (const shape of (layout.shapes ?? []).filter((s) => s.type === "path")) {
    const [own] = shape.name.split(" "), here = [...order.keys()].filter((i) => groupOf.get(order[i]) === own);
    const starts = here.filter((i, k) => here[k - 1] !== i - 1), ends = here.filter((i, k) => here[k + 1] !== i + 1);
    shape.path = starts.map((a, k) => `M${a - 0.5},0H${ends[k] + 0.5}V1.07H${a - 0.5}Z`).join("") || "M0,0Z";
    Object.assign(shape, { name: `${own} (${here.length})`, showlegend: starts.length > 1 && shape.yref === "y domain" });
    shape.opacity = isDark() ? 0.3 : 0.16;
    shape.label.text = starts.length === 1 && here.length > 0.05 * order.length ? own : "";
  }
  const at = order.indexOf(S.cls), box = { xref: "x", yref: "paper", x0: at - 0.5, x1: at + 0.5, y0: 0, y1: 1 };
  if (at >= 0) layout.shapes = [...(layout.shapes ?? []), { ...box, line: { width: 1, color: isDark() ? "#FFF" : "#000" } }];
}

/** Ends of an axis on which all values compare, as gradient_span() in plots/live.py. */
function span(values, log) {
  const found = values.filter((x) => Number.isFinite(x) && x > 0);
  if (!found.length) throw new Refusal("No class has gradient here; choose another step or run.");
  const high = most(found), low = Math.max(least(found), high / 1e5);
  return log ? [Math.log10(low / 1.4), Math.log10(high * 1.4)] : [0, 1.08 * high];
}

const decades = ([low, high]) => (high - low < 3 ? "D2" : 1); // ticks of a logarithmic axis

const VIEWS = {
  groups: () => ({ figure: copy(D.figures.groups), said: D.said.groups }),
  ablation: () => ({ figure: copy(D.figures.ablation), said: D.said.ablation }),
  imbalance: () => ({ figure: copy(D.figures.imbalance), said: D.said.imbalance }),
  stages: () => ({ figure: copy(D.figures.stages), said: D.said.stages }),

  gradients() {
    const { runs, figure } = pair("gradients", true), fields = S.show === "both" ? ["positive", "negative"] : [S.show];
    const epochs = S.epoch ? [...Array(Number($("[data-key=epoch]").max) - 1).keys()].map((e) => e + 1) : [0];
    const range = span(runs.flatMap((r) => fields.flatMap((f) => epochs.flatMap((e) => gradient(r, f, e)))), S.log);
    fill(figure, runs, ({ field }, run) => gradient(run, field, S.epoch), (run) => card(run, S.epoch));
    for (const trace of figure.data) trace.visible = fields.includes(trace.meta.field);
    const title = { text: S.show === "ratio" ? "positive / negative gradient" : "sum of |dL/dz|" };
    for (const axis of [figure.layout.yaxis, figure.layout.yaxis2].filter(Boolean))
      Object.assign(axis, { range, title, type: S.log ? "log" : "linear", dtick: S.log ? decades(range) : undefined });
    const values = gradient(runs[0], S.show === "both" ? "total" : S.show, S.epoch), { names } = runs[0];
    const sorted = [...names.keys()].sort((i, j) => values[j] - values[i]).map((i) => names[i]);
    classAxis(figure, runs[0], S.order === "gradient" ? sorted : names);
    figure.layout.uirevision = [S.a, S.b, S.show, S.order, S.log, S.epoch > 0].join(); // else the zoom stays
    return { figure, said: runs.map((run) => run.said[Math.min(S.epoch, run.steps.length)]).join(" ") };
  },

  history() {
    const { runs, figure } = pair("history", true);
    for (const trace of figure.data) {
      const run = runs[trace.meta.row], c = run.names.indexOf(S.cls), { field } = trace.meta;
      trace.x = run.steps;
      trace.y = run.lengths.map((n, e) => (field === "ap" ? 100 * run.ap[e][c] : (field === "positive" ? run.pos : run.neg)[e][c] / n));
    }
    return { figure, said: runs.map((run) => {
      const [group, count, ap, up, down] = card(run)[run.names.indexOf(S.cls)];
      return `${run.title}: ${S.cls} (${group}, ${count.toLocaleString("en")} training images) ends at AP ${ap}, with a gradient of ${up} over its positives and ${down} over its negatives.`;
    }).join(" ") };
  },

  shares() {
    const { runs, figure, both } = pair("shares", true);
    const parts = runs.map((run) => {
      const totals = run.steps.map((_, e) => gradient(run, "total", e + 1)), means = totals.map((t) => sum(t) / run.C);
      const rates = means.map((mean, e) => mean / run.lengths[e]), top = most(rates);
      const ratio = totals.map((row, e) => row.map((x) => (x > 0 ? x / means[e] : NaN)));
      const fade = rates.map((r) => 0.85 * (1 - r / top || 0)), classes = run.names.map((_, c) => ratio.map((row) => row[c]));
      return { ratio: classes, log: classes.map((row) => row.map(Math.log2)), fade: classes.map(() => fade) };
    });
    const limit = Math.min(most([1, ...parts.flatMap(({ log }) => log.map((row) => most(row.map((x) => Math.abs(x) || 0))))]), 5);
    for (const trace of figure.data) {
      const { row, field } = trace.meta, part = parts[row];
      const at = runs[0].names.map((name) => runs[row].names.indexOf(name)); // one order for both
      if (!part.sorted) for (const key of ["ratio", "log", "fade"]) part[key] = at.map((c) => part[key][c]);
      part.sorted = true;
      Object.assign(trace, { y: runs[0].names.map(esc), x: runs[row].steps.map((step) => `step ${step}`) });
      Object.assign(trace, field === "fade" ? { z: part.fade } : { z: part.log, customdata: part.ratio, zmin: -limit, zmax: limit });
    }
    const { C } = runs[0], { layout } = figure, at = runs[0].names.indexOf(S.cls);
    layout.height = 130 + Math.min(Math.max(18 * C, 160), 760);
    Object.assign(layout.yaxis, C <= 60 ? { dtick: 1 } : { dtick: undefined, nticks: 50 });
    for (const key of Object.keys(layout).filter((k) => k.startsWith("xaxis"))) layout[key].nticks = Math.max(3, innerWidth / 90 / runs.length);
    if (at >= 0) layout.shapes = [{ xref: "paper", yref: "y", x0: 0, x1: 1, y0: at - 0.5, y1: at + 0.5, line: { width: 1, color: isDark() ? "#FFF" : "#000" } }];
    return { figure, said: `Share of each class in every epoch's gradient: ${both}.` };
  },

  balancing() {
    const run = D.runs[S.a], figure = copy(D.figures.balancing), G = run.whole.flat(), total = sum(G), cap = 10 ** S.cap;
    if (!(total > 0)) throw new Refusal(`${run.title} holds no record of its gradients.`);
    const weight = balance(G, S.strength, cap), share = (values) => values.map((x) => (100 * x) / total);
    const parts = { weight, before: share(G), after: share(weight.map((w, i) => w * G[i])) };
    const half = (values, side) => values.slice(...(side === "positive" ? [0, run.C] : [run.C]));
    fill(figure, [run, run], ({ side, field }) => half(parts[field], side), (r) => card(r));
    const seen = (values) => values.filter((_, i) => G[i] > 0), full = balance(G, 1, 1000); // axes for every strength
    const ends = [span([1, ...seen(full)], true), span([50 / run.C, ...seen(parts.before)], true)];
    ["yaxis", "yaxis2"].forEach((axis, i) => Object.assign(figure.layout[axis], { range: ends[i], dtick: decades(ends[i]) }));
    for (const line of figure.layout.shapes.filter((s) => s.type === "line" && s.yref === "y2")) line.y0 = line.y1 = 50 / run.C;
    classAxis(figure, run);
    const ratio = (values) => most(seen(values)) / least(seen(values)), R = ratio(G), then = ratio(parts.after);
    const clipped = then > 1.001 * R ** (1 - S.strength) ? `, had no weight been held at ${short(cap)}` : "";
    const already = run.balanced ? ` The gradients of ${run.title} were recorded with balancing already at work.` : "";
    return { figure, said: `${run.title}: largest over smallest of the ${seen(G).length} entries is R = ${short(R)} before and ${short(then)} after; R^(1 - ${S.strength}) predicts ${short(R ** (1 - S.strength))}${clipped}.${already}` };
  },

  sampling() {
    const L = D.sampling[S.labels], u = S.sampler === "group" ? S.uniform : 0, N = L.images;
    const { rates, own, square } = S.sampler === "group" ? L.ridges[S.ridge] : L["class-aware"];
    const figure = copy(D.figures.sampling), even = L.count.map((n) => n / N), mixed = rates.map((r, c) => (1 - u) * r + u * even[c]);
    fill(figure, [{ ...L, C: L.names.length, even }, { ...L, C: L.names.length, even: mixed }], (_, run) => run.even,
      (run) => run.names.map((_, c) => [run.group[c], run.count[c], "–", "–", "–"]));
    figure.data[1].name = S.sampler;
    classAxis(figure, L);
    const inside = (values) => ["head", "medium", "tail"].map((group) => {
      const found = values.filter((x, c) => L.group[c] === group && L.count[c] > 0);
      return found.length ? `${group} ${(most(found) / least(found)).toFixed(2)}` : `no ${group}`;
    }).join(", ");
    const effective = 1 / ((1 - u) ** 2 * square + (2 * u * (1 - u) + u * u) / N);
    return { figure, said: `Max/min class rate inside groups, over whole batches: ${inside(mixed)}; over what is sampled for each group: ${inside(own)}. ${Math.round(effective).toLocaleString("en")} effective images of ${N.toLocaleString("en")}.` };
  },

  ap() {
    const { runs, figure, both } = pair("ap");
    fill(figure, runs, (_, run) => Array.from(run.last, (x) => 100 * x), (run) => card(run));
    figure.data.forEach((trace, row) => { trace.name = esc(runs[row].title); });
    classAxis(figure, runs[0]);
    return { figure, said: `Average precision of each class at the end: ${both}.` };
  },

  curves() {
    const { runs, figure, both } = pair("curves");
    for (const trace of figure.data) {
      const { row, field } = trace.meta;
      Object.assign(trace, { x: runs[row].steps, y: runs[row].curves[field], name: `${esc(runs[row].title)}, ${field}` });
    }
    return { figure, said: `mAP of head, medium and tail while training: ${both}.` };
  },

  interference() {
    const { runs, figure } = pair("interference"), parts = runs.map((run) => D.interference[run.title]);
    if (parts.includes(undefined)) throw new Refusal("Interference is not recorded for this run; choose another.");
    const apart = parts.flatMap(({ names, cosine }) => Array.from(floats(cosine), (x, i) => (i % (names.length + 1) ? Math.abs(x) || 0 : 0)));
    const limit = Math.min(Math.max(most(apart), 0.1), 1); // as in plots/live.py
    for (const trace of figure.data) {
      const { names, norm, cosine } = parts[trace.meta.row], places = names.map(esc), C = names.length;
      Object.assign(trace, { zmin: -limit, zmax: limit, x: places, y: places, z: rows(floats(cosine), C), customdata: norm.map((n) => Array(C).fill(n)) });
    }
    classAxis(figure, parts[0]);
    return { figure, said: parts.map((part) => part.said).join(" ") };
  },

  diversity() {
    const { figure, said, classes } = D.diversity[`${S.measure} ${S.split}`], filled = copy(figure);
    classAxis(filled, classes);
    return { figure: filled, said };
  },
};

// Drawing what is in view, when it is ------------------------------------------------------------

const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
const inView = new Set(), stale = new Set();

async function draw(div, width) {
  stale.delete(div);
  let out;
  try { out = VIEWS[div.dataset.view](); } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    out = { said: error.message };
  }
  const { figure, said } = out, text = div.nextElementSibling;
  div.hidden = !figure;
  Object.assign(text, { textContent: said, className: figure ? "said" : "error" });
  div.setAttribute("aria-label", said);
  if (!figure) return;
  const narrow = (width ?? div.clientWidth) < 500, { layout } = figure;
  Object.assign(layout, { width, dragmode: touch ? false : "zoom" });
  if (narrow) {
    Object.assign(layout, { margin: { l: 44, r: 6, b: 70, t: layout.margin?.t ?? 24 }, font: { size: 11 } });
    for (const key of Object.keys(layout).filter((k) => k.startsWith("xaxis"))) layout[key].automargin = false;
  }
  div.style.height = `${layout.height}px`; // kept when the window changes its width
  const config = { responsive: !width, ...D.config, displayModeBar: narrow ? false : "hover" };
  await Plotly.react(div, figure.data, layout, { ...config, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
  if (!div.dataset.drawn) div.on("plotly_click", ({ points: [{ x, y }] }) => choose(D.runs[S.a].names.find((n) => [x, y].includes(esc(n)))));
  div.dataset.drawn = Math.round(performance.now());
}

let queue = Promise.resolve(); // one figure after the other, each shown as soon as it is drawn
function later(div) {
  queue = queue.then(() => stale.has(div) && draw(div)).catch(console.error).then(() => new Promise(requestAnimationFrame));
}

function refresh(within = document) {
  for (const div of all(".plot", within)) stale.add(div);
  for (const div of inView) later(div);
}

const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    inView[isIntersecting ? "add" : "delete"](target);
    if (isIntersecting) later(target);
  }
}, { rootMargin: "300px" });

/** A table that sorts by the column that is clicked. columns: [name, digits, or null for text]. */
function table(div, columns, lines, by = null, down = false) {
  const element = document.createElement("table"), head = element.createTHead().insertRow(), body = element.createTBody();
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(b, "en", { numeric: true }));
  const sorted = by === null ? lines : lines.toSorted((p, q) => (down ? -1 : 1) * compare(p[by], q[by]));
  columns.forEach(([name, digits], i) => {
    const th = head.appendChild(document.createElement("th")), button = th.appendChild(document.createElement("button"));
    Object.assign(th, { scope: "col", className: digits === null ? "text" : "", ariaSort: i === by ? (down ? "descending" : "ascending") : null });
    button.textContent = name;
    button.onclick = () => {
      table(div, columns, lines, i, i === by ? !down : digits !== null);
      all("button", div)[i].focus();
    };
  });
  for (const line of sorted) {
    const tr = body.insertRow();
    line.forEach((value, i) => {
      const [, digits] = columns[i], missing = value === null || Number.isNaN(value);
      Object.assign(tr.insertCell(), { textContent: missing ? "–" : typeof value === "number" && digits !== null ? value.toFixed(digits) : value,
        className: digits === null ? "text" : "" });
    });
  }
  div.replaceChildren(element);
}

function classTable() {
  const run = D.runs[S.a], [up, down] = run.whole, div = $("[data-table=classes]");
  const columns = [["class", null], ["group", null], ["images", 0], ["AP", 1]], scored = D.photos.runs?.[run.title];
  if (run.trained) columns.push(["gradient over positives", 3], ["over negatives", 3]);
  if (scored) columns.push(["threshold", 3], ["misses", 0], ["false alarms", 0]);
  const at = new Map((D.photos.names ?? []).map((name, c) => [name, c]));
  if ($("details").open) table(div, columns, run.names.map((name, c) => [name, run.group[c], run.count[c], 100 * run.last[c],
    ...(run.trained ? [up[c], down[c]] : []),
    ...(scored ? [scored.thresholds[at.get(name)], scored.counts.miss[at.get(name)], scored.counts["false alarm"][at.get(name)]] : [])]));
}

// The first screenful ----------------------------------------------------------------------------

const GROUPS = ["head", "medium", "tail"];
const number = (x) => (Number.isFinite(x) ? (100 * x).toFixed(1) : "–");
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(100 * x).toFixed(1)}`;

/** An element with children: texts, which are never read as HTML, and elements. */
function el(tag, attributes = {}, ...children) {
  const out = Object.assign(document.createElement(tag), attributes);
  out.append(...children.filter((child) => child !== null && child !== undefined));
  return out;
}
const named = (name, group) => el("button", { type: "button", className: `pick group ${group}`, title: name, onclick: () => choose(name) }, el("bdi", {}, name));

function answer() {
  const a = D.runs[S.a], b = S.b >= 0 && S.b !== S.a ? D.runs[S.b] : null, runs = D.runs;
  const leader = (group) => runs.filter((r) => Number.isFinite(r.means[group] ?? NaN)).sort((p, q) => q.means[group] - p.means[group])[0];
  const best = leader("mAP"), tail = leader("tail");
  $("#answer").replaceChildren(...(!best ? ["No run has been tested"] : runs.length === 1 ? [el("bdi", {}, best.title), `: ${number(best.means.mAP)} mAP`]
    : [el("bdi", {}, best.title), ` leads with ${number(best.means.mAP)} mAP`]));
  const lead = [];
  if (tail && tail !== best) lead.push(`In the tail ${tail.title} is ahead: ${number(tail.means.tail)}. `);
  if (b && Number.isFinite(a.means.mAP) && Number.isFinite(b.means.mAP)) {
    lead.push(`${b.title} against ${a.title}: ${signed(b.means.mAP - a.means.mAP)} mAP`);
    if (Number.isFinite(a.means.tail ?? NaN) && Number.isFinite(b.means.tail ?? NaN)) lead.push(`, ${signed(b.means.tail - a.means.tail)} in the tail`);
    lead.push(". ");
  }
  lead.push(`${runs.length === 1 ? "One run" : `${runs.length} runs`}, ${a.C.toLocaleString("en")} classes, ${a.test_images.toLocaleString("en")} test images.`);
  $("#lead").textContent = lead.join("");

  $("#wins").replaceChildren(...["mAP", ...GROUPS].flatMap((group) => {
    const top = leader(group);
    if (!top) return [];
    const second = runs.filter((r) => r !== top && Number.isFinite(r.means[group] ?? NaN)).sort((p, q) => q.means[group] - p.means[group])[0];
    const beside = second ? ` · ${signed(top.means[group] - second.means[group])} over ${second.title}` : "";
    return [el("li", {}, el("b", { className: group === "mAP" ? "" : `group ${group}` }, group === "mAP" ? "all classes" : group), el("span", { className: "number" }, number(top.means[group])),
      el("span", { className: "track" }, Object.assign(el("i"), { style: `width:${100 * top.means[group]}%` })), el("span", { className: "quiet" }, `${top.title}${beside}`))];
  }));

  const total = a.trained && a.said.length ? gradient(a, "total", 0) : null, whole = total ? sum(total) : 0;
  const starving = whole > 0 ? total.map((x) => (x * a.C) / whole) : Array.from(a.last);
  const order = [...a.names.keys()].filter((c) => Number.isFinite(starving[c])).sort((i, j) => starving[i] - starving[j]).slice(0, 5);
  $("#starved-title").textContent = whole > 0 ? `Which classes are starved: least gradient in ${a.title}` : `Which classes do worst: least AP in ${a.title}`;
  $("#starved").replaceChildren(...order.map((c) => el("li", {}, named(a.names[c], a.group[c]),
    el("span", { className: "number" }, whole > 0 ? `${short(starving[c])}×` : `${number(starving[c])}`),
    el("span", { className: "quiet" }, `${whole > 0 ? `of an equal share · AP ${percent(a.last[c])} · ` : "AP · "}${a.count[c].toLocaleString("en")} training images`))));

  const look = [], go = (to, text, note, name) => look.push(el("li", {}, el("a", { href: `#${to}`, onclick: () => choose(name) }, text), el("span", { className: "quiet" }, note)));
  if (b && b.names.every((name) => a.names.includes(name))) {
    const gain = b.names.map((name, c) => [name, b.last[c] - a.last[a.names.indexOf(name)]]).filter(([, x]) => Number.isFinite(x)).sort((p, q) => q[1] - p[1]);
    if (gain.length) {
      go("compare", `${gain[0][0]}: ${signed(gain[0][1])} AP`, `the largest gain of ${b.title} over ${a.title}`, gain[0][0]);
      const [name, loss] = gain.at(-1);
      if (loss < 0) go("compare", `${name}: ${signed(loss)} AP`, `its largest loss; ${gain.filter(([, x]) => x < 0).length} of ${gain.length} classes lose`, name);
    }
  }
  const scored = D.photos.runs?.[a.title];
  if (scored) {
    const counts = D.photos.names.map((name, c) => [name, scored.counts.miss[c]]), rare = a.names.findLast((name, i) => a.group[i] === "tail" || i === a.C - 1);
    const [, missed] = counts.find(([name]) => name === rare) ?? [];
    if (missed !== undefined) go("photos", `${rare}: ${missed} missed ${missed === 1 ? "photo" : "photos"}`, `of the rarest class, by ${a.title}`, rare);
    go("photos", `${sum(scored.counts.miss).toLocaleString("en")} misses, ${sum(scored.counts["false alarm"]).toLocaleString("en")} false alarms`, `of ${a.title} at its thresholds`);
  }
  if (whole > 0) {
    const down = a.names.filter((_, c) => gradient(a, "negative", 0)[c] > gradient(a, "positive", 0)[c]).length;
    go("gradients", `${down} of ${a.C} classes are pushed down harder than up`, `by the gradients of ${a.title}`);
    if (D.figures.imbalance) go("gradients", "Imbalance through the training", D.said.imbalance.split(", first")[0].toLowerCase());
  }
  $("#look").replaceChildren(...look.slice(0, 5));
}

// Photos: the worst mistakes ---------------------------------------------------------------------

const P = D.photos, KINDS = ["miss", "false alarm", "differ"];
let shown = 24;

/** Rows [photo, class, kind, how wrong, rank] of what the controls ask for. */
function wanted() {
  const a = D.runs[S.a], b = D.runs[S.b], kind = Number(S.kind);
  let found = (P.runs[a.title]?.rows ?? []).filter((row) => row[2] === kind);
  if (kind === 2) {
    const pair = P.differ.find(({ pair }) => b && pair.includes(a.title) && pair.includes(b.title));
    found = (pair?.rows ?? []).map(([i, c, gap]) => [i, c, 2, gap]);
  }
  const groupOf = new Map(a.names.map((name, c) => [name, a.group[c]]));
  if (S.among === "cls") found = found.filter((row) => P.names[row[1]] === S.cls);
  else if (S.among) found = found.filter((row) => groupOf.get(P.names[row[1]]) === S.among);
  const by = { margin: (p, q) => q[3] - p[3], class: (p, q) => P.names[p[1]].localeCompare(P.names[q[1]]) || q[3] - p[3], name: (p, q) => P.photos[p[0]].id.localeCompare(P.photos[q[0]].id) };
  return found.sort(by[S.sort]);
}

const chance = (title, i, c) => P.runs[title]?.p[i].find(([k]) => k === c)?.[1];
const predicted = (title, i) => P.runs[title].p[i].filter(([c, p]) => p >= P.runs[title].thresholds[c]).map(([c]) => c);
const list = (classes, others) => classes.length ? classes.flatMap((c, k) => [k ? ", " : "", el("bdi", { className: others.includes(c) ? "" : "wrong" }, P.names[c])]) : ["none"];
const picture = ({ src, given, id }) => src ? el("img", { src, loading: "lazy", decoding: "async", alt: `${id}, with ${given.map((c) => P.names[c]).join(", ") || "no label"}` })
  : el("span", { className: "none" }, "no file");

function wall() {
  if (!P.per_class) return;
  const a = D.runs[S.a], b = D.runs[S.b], found = wanted(), said = KINDS[S.kind];
  const of = S.among === "cls" ? ` of ${S.cls}` : S.among ? ` in the ${S.among}` : "";
  $("#found").textContent = !P.runs[a.title] ? `${a.title} keeps no scores of these images; choose another run.`
    : S.kind === "2" && (!b || b === a || !P.runs[b.title]) ? "Choose another run to compare with, above." : found.length
      ? `${Math.min(shown, found.length)} of ${found.length} worst ${S.kind === "0" ? "misses" : S.kind === "1" ? "false alarms" : "differences"}${of}, ${S.kind === "2" ? `${a.title} against ${b.title}` : `by ${a.title}`}.`
      : `No ${said === "differ" ? "difference" : said}${of} by ${a.title}.`;
  $("#wall").replaceChildren(...found.slice(0, shown).map(([i, c, kind, , rank]) => {
    const photo = P.photos[i], group = a.group[a.names.indexOf(P.names[c])], p = chance(a.title, i, c), made = predicted(a.title, i);
    const value = kind === 2 ? (photo.given.includes(c) ? "given" : "not given") : percent(p ?? 0);
    const note = kind === 2 ? `${a.title} ${percent(p ?? 0)}, ${b.title} ${percent(chance(b.title, i, c) ?? 0)}` : `threshold ${percent(P.runs[a.title].thresholds[c])}, rank ${rank}`;
    return el("button", { type: "button", className: "photo", onclick: () => sheet(i) }, picture(photo),
      el("strong", {}, el("span", { className: `group ${group}` }), el("bdi", {}, P.names[c]), el("span", {}, value)), el("span", { className: "quiet" }, note), el("br"),
      el("span", {}, "given ", ...list(photo.given, made)), el("br"), el("span", {}, "predicted ", ...list(made, photo.given)));
  }));
  $("#more").hidden = found.length <= shown;
}

/** Everything about one photo. */
function sheet(i) {
  const photo = P.photos[i], titles = [...new Set([S.a, S.b])].filter((r) => r >= 0).map((r) => D.runs[r].title).filter((title) => P.runs[title]);
  const parts = titles.map((title) => {
    const lines = P.runs[title].p[i].map(([c, p]) => {
      const given = photo.given.includes(c), unknown = photo.unknown.includes(c), made = p >= P.runs[title].thresholds[c];
      const said = `${given ? "given" : unknown ? "unknown" : "not given"}, ${made ? "predicted" : "not predicted"} (threshold ${percent(P.runs[title].thresholds[c])})`;
      const run = D.runs.find((r) => r.title === title), name = el("button", { type: "button", className: `pick group ${run.group[run.names.indexOf(P.names[c])]}`, onclick: () => { $("#photo").close(); choose(P.names[c]); } }, el("bdi", {}, P.names[c]));
      return el("li", {}, name, el("span", { className: `number${!unknown && given !== made ? " wrong" : ""}` }, percent(p)),
        el("span", { className: "track" }, Object.assign(el("i"), { style: `width:${100 * p}%` })), el("span", { className: "quiet" }, said));
    });
    return el("article", {}, el("h2", {}, el("bdi", {}, title)), el("ol", {}, ...lines));
  });
  $("#photo .sheet").replaceChildren(el("div", {}, picture(photo), el("h3", {}, el("bdi", {}, photo.id)), el("p", { className: "quiet" }, `Given: ${photo.given.map((c) => P.names[c]).join(", ") || "no label"}`)), ...parts);
  $("#photo").showModal();
}

// Controls ---------------------------------------------------------------------------------------

const BESIDE = { // what stands beside a slider
  epoch: (e) => (e ? `until step ${longest().steps[e - 1]}` : "whole run"), strength: (x) => x.toFixed(2), cap: (x) => short(10 ** x),
  ridge: (i) => String(D.sampling[S.labels].ridges[i].ridge), uniform: (x) => x.toFixed(2),
};
const longest = () => [S.a, S.b].filter((i) => i >= 0).map((i) => D.runs[i]).reduce((p, q) => (q.steps.length > p.steps.length ? q : p));
const offer = (key, names, first = []) => $(`[data-key=${key}]`)?.replaceChildren(...first, ...names.map((name, i) => new Option(name, ["a", "b"].includes(key) ? i : name)));

function choose(name) {
  if (!name) return;
  S.cls = $("[data-key=cls]").value = name;
  if (D.photos.per_class) S.among = $("[data-key=among]").value = "cls";
  refresh();
  wall();
}

function read(control) {
  const { dataset: { key }, type, value } = control;
  if (key === "cls") {
    const { names } = D.runs[S.a], wanted = value.trim().toLowerCase();
    const found = names.find((name) => name.toLowerCase() === wanted) ?? names.find((name) => name.toLowerCase().includes(wanted));
    control.setCustomValidity(found ? "" : `No class is called ${value}.`);
    control.reportValidity();
    S.cls = found ?? S.cls;
  } else if (key === "epoch") S.epoch = Number(value) > longest().steps.length ? 0 : Number(value);
  else S[key] = type === "checkbox" ? control.checked : type === "range" || key === "a" || key === "b" ? Number(value) : value;
  if (type === "range") control.nextElementSibling.textContent = BESIDE[key](S[key]);
}

function follow() { // lists and sliders that depend on the runs
  const { names } = D.runs[S.a], slider = $("[data-key=epoch]");
  if (!names.includes(S.cls)) S.cls = $("[data-key=cls]").value = names.at(-1);
  $("#names").replaceChildren(...names.map((name) => new Option(name)));
  if (slider) { // not where nothing was trained
    const whole = S.epoch === 0 || S.epoch === undefined;
    slider.max = longest().steps.length + 1;
    if (whole) slider.value = slider.max;
    read(slider);
  }
  classTable();
  answer();
  wall();
}

if (!P.names) $("#photos").remove();
else {
  $("#filters").hidden = $("#found").hidden = !P.per_class;
  $("#which").textContent = P.per_class ? `This page holds ${P.photos.filter(({ src }) => src).length.toLocaleString("en")} small pictures: of each class and run the worst ${P.per_class}, half misses, half false alarms. Labels in orange are missed or false. Click one to see all its classes, or a class in any figure to see its photos.`
    : "This page holds no image and no image's name (--no-images, the default). The counts of mistakes stand in the table of every class. To see the photos: ltml report RUNS --images 24.";
  $("#which").className = "quiet";
  $("#more").onclick = () => { shown += 24; wall(); };
  $("#photo .close").onclick = () => $("#photo").close();
  $("#photo").onclick = ({ target, currentTarget }) => target === currentTarget && currentTarget.close();
}
$("#about").textContent = `Written by ltml. Nothing on this page is fetched from elsewhere. It holds ${P.per_class ? "small pictures of test images" : "no images"}.`;
for (const section of all("section:not(#top)")) {
  if (D.left_out.includes(section.id)) section.remove();
  else $("nav").append(Object.assign(document.createElement("a"), { href: `#${section.id}`, textContent: $("h2", section).textContent }));
}
if (D.left_out.includes("gradients")) $("#during").remove();
$(".plot[data-view=imbalance]")?.parentElement.toggleAttribute("hidden", !D.figures.imbalance);
offer("a", D.runs.map((run) => run.title));
offer("b", D.runs.map((run) => run.title), [new Option("no other", -1)]);
const ahead = D.runs.reduce((best, run, i) => ((run.means.mAP ?? -1) > (D.runs[best].means.mAP ?? -1) ? i : best), 0);
$("[data-key=b]").value = D.runs.length > 1 ? ahead || 1 : -1; // against the best
offer("labels", Object.keys(D.sampling));
for (const { ridges } of Object.values(D.sampling)) $("[data-key=ridge]").max = ridges.length - 1;
offer("measure", [...new Set(Object.keys(D.diversity).map((key) => key.split(" ")[0]))]);
for (const div of all(".plot")) {
  div.role = "img";
  div.after(Object.assign(document.createElement("p"), { ariaLive: "polite" }));
  watch.observe(div);
}
for (const control of all("[data-key]")) {
  if (!["cls", "epoch"].includes(control.dataset.key)) read(control);
  control.addEventListener(control.type === "search" ? "change" : "input", () => {
    read(control);
    shown = 24;
    if (control.closest("#filters")) { wall(); return; }
    if (control.closest("#choice")) follow();
    refresh(control.closest("section") ?? document);
  });
}
S.among ??= "";
follow();
for (const name of ["overview", "facts"]) table($(`[data-table=${name}]`), D[name].columns, D[name].rows);
$("details").addEventListener("toggle", classTable);
$("#choice").addEventListener("submit", (event) => event.preventDefault());
refresh();

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
  refresh();
}
$("#theme").onclick = () => paint(isDark() ? "light" : "dark");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh());
let theme;
addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  for (const div of all(".plot")) draw(div, 680); // as wide as a page
});
addEventListener("afterprint", () => paint(theme));
