"use strict";
// Figures under controls that need no kernel: of a report (page.js), and of the explorers on the site.
const $ = (query, within = document) => within.querySelector(query);
const all = (query, within = document) => [...within.querySelectorAll(query)];

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

/** Ends of an axis on which all values compare, as gradient_span() in plots/live.py. */
function span(values, log) {
  const found = values.filter((x) => Number.isFinite(x) && x > 0);
  if (!found.length) throw new Refusal("No class has gradient here; choose another step or run.");
  const high = most(found), low = Math.max(least(found), high / 1e5);
  return log ? [Math.log10(low / 1.4), Math.log10(high * 1.4)] : [0, 1.08 * high];
}

const GROUPS = ["head", "medium", "tail"];
const decades = ([low, high]) => (high - low < 3 ? "D2" : 1); // ticks of a logarithmic axis

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

/**
 * Let controls, [data-key] in root, fill its figures, .plot, from D, which report.py wrote. What `on` names is called after
 * a class was chosen, and after the runs were. Returns what a page adds to: the controls' state S, and functions.
 */
function explore(root, D, on = {}) {
  const $ = (query, within = root) => within.querySelector(query), all = (query, within = root) => [...within.querySelectorAll(query)];
  const S = { a: 0, b: D.against ?? -1, epoch: 0, show: "both", order: "count", log: true }; // what the controls say
  const recent = []; // settings, the last one first
  let room = innerWidth; // pixels beside which the figure in hand is drawn
  for (const run of D.runs) {
    Object.assign(run, D.tables[run.table]); // name of each class, its group and count
    run.C = run.names.length;
    for (const key of ["pos", "neg", "ap"]) run[key] = rows(floats(run[key]), run.C); // (E, C)
    run.whole = [run.pos, run.neg].map((table) => run.names.map((_, c) => sum(table.map((row) => row[c]))));
    run.last = run.ap.findLast((row) => row.some(Number.isFinite)) ?? run.ap.at(-1);
    run.lengths = run.steps.map((step, e) => step - (run.steps[e - 1] ?? 0));
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
      Object.assign(axis, { categoryarray: order.map(esc), range: [-0.6, order.length - 0.4], nticks: room / 28,
        dtick: order.length < room / 22 ? 1 : undefined });
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

  const VIEWS = {
    groups: () => ({ figure: copy(D.figures.groups), said: D.said.groups }),
    ablation: () => ({ figure: copy(D.figures.ablation), said: D.said.ablation }),
    imbalance: () => ({ figure: copy(D.figures.imbalance), said: D.said.imbalance }),
    stages: () => ({ figure: copy(D.figures.stages), said: D.said.stages }),

    gradients() {
      const { runs, figure } = pair("gradients", true), fields = S.show === "both" ? ["positive", "negative"] : [S.show];
      const epochs = S.epoch ? [...Array(longest().steps.length).keys()].map((e) => e + 1) : [0];
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
        return `${run.title}: ${S.cls} (${group}, ${count.toLocaleString("en")} training image${count === 1 ? "" : "s"}) ends at AP ${ap}, with a gradient of ${up} over its positives and ${down} over its negatives.`;
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
      for (const key of Object.keys(layout).filter((k) => k.startsWith("xaxis"))) layout[key].nticks = Math.max(3, room / 90 / runs.length);
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
      fill(figure, [{ ...L, C: L.names.length, even }, { ...L, C: L.names.length, even: S.over === "own" ? own : mixed }], (_, run) => run.even,
        (run) => run.names.map((_, c) => [run.group[c], run.count[c], "–", "–", "–"]));
      figure.data[1].name = S.sampler;
      classAxis(figure, L);
      const inside = (values) => GROUPS.map((group) => {
        const found = values.filter((x, c) => L.group[c] === group && L.count[c] > 0);
        return found.length ? `${group} ${(most(found) / least(found)).toFixed(2)}` : `no ${group}`;
      }).join(", ");
      const effective = 1 / ((1 - u) ** 2 * square + (2 * u * (1 - u) + u * u) / N);
      return { figure, said: `Max/min class rate inside groups, over whole batches: ${inside(mixed)}; over what is sampled for each group: ${inside(own)}. ${Math.round(effective).toLocaleString("en")} effective images of ${N.toLocaleString("en")}.` };
    },

    ap() {
      const { runs, figure } = pair("ap");
      fill(figure, runs, (_, run) => Array.from(run.last, (x) => 100 * x), (run) => card(run));
      figure.data.forEach((trace, row) => { trace.name = esc(runs[row].title); });
      classAxis(figure, runs[0]);
      return { figure, said: `Average precision of each class at the end: ${runs.map((run) => `${run.title} (mAP ${percent(run.means.mAP)})`).join(" and ")}.` };
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

  // Drawing what is in view, when it is ----------------------------------------------------------

  const touch = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
  const inView = new Set(), stale = new Set();
  let printing = false;

  async function draw(div, width) {
    stale.delete(div);
    room = width ?? (div.hidden ? div.parentElement : div).clientWidth;
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
    const narrow = room < 500, { layout } = figure;
    Object.assign(layout, { width, dragmode: touch ? false : "zoom" });
    if (root !== document) layout.paper_bgcolor = "rgba(0,0,0,0)"; // the page's own
    if (narrow) {
      Object.assign(layout, { margin: { l: 44, r: 6, b: 70, t: layout.margin?.t ?? 24 }, font: { size: 11 } });
      for (const key of Object.keys(layout).filter((k) => k.startsWith("xaxis"))) layout[key].automargin = false;
    }
    div.style.height = `${layout.height}px`; // kept when the window changes its width
    const config = { responsive: !width, ...D.config, displayModeBar: narrow ? false : "hover" };
    await Plotly.react(div, figure.data, layout, { ...config, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
    if (!div.dataset.drawn) div.on("plotly_click", ({ points: [{ x, y }] }) => choose((D.runs[S.a] ?? D.sampling[S.labels]).names.find((n) => [x, y].includes(esc(n)))));
    div.dataset.drawn = Math.round(performance.now());
  }

  let queue = Promise.resolve(); // one figure after the other, each shown as soon as it is drawn
  function later(div) {
    queue = queue.then(() => stale.has(div) && draw(div)).catch(console.error).then(() => new Promise(requestAnimationFrame));
  }

  function refresh(within = root) {
    if (printing) return;
    for (const div of all(".plot", within)) stale.add(div);
    for (const div of inView) later(div);
  }

  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      inView[isIntersecting ? "add" : "delete"](target);
      if (isIntersecting) later(target);
    }
  }, { rootMargin: "300px" });

  // Controls -------------------------------------------------------------------------------------

  const BESIDE = { // what stands beside a slider
    epoch: (e) => (e ? `until step ${longest().steps[e - 1]}` : "whole run"), strength: (x) => x.toFixed(2), cap: (x) => short(10 ** x),
    ridge: (i) => String(D.sampling[S.labels].ridges[i].ridge), uniform: (x) => x.toFixed(2),
    ...Object.fromEntries((D.grid ?? []).map(({ key, values }) => [key, (i) => values[i]])),
  };
  const longest = () => [S.a, S.b].filter((i) => i >= 0).map((i) => D.runs[i]).reduce((p, q) => (q.steps.length > p.steps.length ? q : p));
  const offer = (key, names, first = []) => $(`[data-key=${key}]`)?.replaceChildren(...first, ...names.map((name, i) => new Option(name, ["a", "b"].includes(key) ? i : name)));

  function choose(name) {
    if (!name) return;
    S.cls = name;
    const box = $("[data-key=cls]");
    if (box) box.value = name;
    on.chosen?.();
    refresh();
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
    else S[key] = type === "checkbox" ? control.checked : type === "range" || key === "a" || key === "b" || control.closest(".ahead") ? Number(value) : value;
    if (type === "range") control.nextElementSibling.textContent = BESIDE[key](S[key]);
  }

  /** The run of a setting that was computed ahead; the one before it stays beside it. */
  function setting() {
    const at = D.index[D.grid.reduce((place, { key, values }) => place * values.length + S[key], 0)];
    for (const { key, needs } of D.grid.filter((dim) => dim.needs)) $(`[data-key=${key}]`).disabled = S[needs[0]] !== needs[1];
    if (recent[0] !== at) recent.unshift(at);
    recent.splice(5);
    [S.a, S.b] = [at, D.against ?? recent[1] ?? -1];
    const shown = (i) => [D.runs[i].title, ...["mAP", ...GROUPS].map((group) => 100 * (D.runs[i].means[group] ?? NaN))];
    const place = $("[data-table=recent]");
    if (place) table(place, [["the last settings", null], ["mAP", 1], ...GROUPS.map((group) => [group, 1])], recent.map(shown));
  }

  function follow() { // lists and sliders that depend on the runs
    if (!D.runs.length) return;
    const { names, last } = D.runs[S.a], slider = $("[data-key=epoch]"), box = $("[data-key=cls]");
    if (box) {
      if (!names.includes(S.cls)) S.cls = box.value = names.findLast((_, c) => Number.isFinite(last[c])) ?? names.at(-1);
      $("datalist").replaceChildren(...names.map((name) => new Option(name)));
    }
    if (slider) { // not where nothing was trained
      const whole = S.epoch === 0 || S.epoch === undefined;
      slider.max = longest().steps.length + 1;
      if (whole) slider.value = slider.max;
      read(slider);
    }
    on.followed?.();
  }

  function start() {
    offer("a", D.runs.map((run) => run.title));
    offer("b", D.runs.map((run) => run.title), [new Option("no other", -1)]);
    const ahead = D.runs.reduce((best, run, i) => ((run.means.mAP ?? -1) > (D.runs[best].means.mAP ?? -1) ? i : best), 0);
    if ($("[data-key=b]")) $("[data-key=b]").value = D.runs.length > 1 ? ahead || 1 : -1; // against the best
    offer("labels", Object.keys(D.sampling ?? {}));
    for (const { ridges } of Object.values(D.sampling ?? {})) $("[data-key=ridge]").max = ridges.length - 1;
    offer("measure", [...new Set(Object.keys(D.diversity ?? {}).map((key) => key.split(" ")[0]))]);
    for (const div of all(".plot")) {
      div.role = "img";
      div.after(Object.assign(document.createElement("p"), { ariaLive: "polite" }));
      watch.observe(div);
    }
    for (const control of all("[data-key]")) {
      if (!["cls", "epoch"].includes(control.dataset.key)) read(control);
      control.addEventListener(control.type === "search" ? "change" : "input", () => {
        read(control);
        if (D.grid) setting();
        if (on.changed?.(control)) return;
        if (control.closest(".choice")) follow();
        refresh(control.closest("section") ?? root);
      });
    }
    if (D.grid) setting();
    for (const name of ["overview", "facts"]) if ($(`[data-table=${name}]`)) table($(`[data-table=${name}]`), D[name].columns, D[name].rows);
    follow();
    $(".choice")?.addEventListener("submit", (event) => event.preventDefault());
    new MutationObserver(() => refresh()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => refresh());
    addEventListener("beforeprint", () => {
      printing = true; // on white: the page's own script says so first
      for (const div of all(".plot")) draw(div, 680); // as wide as a sheet
    });
    addEventListener("afterprint", () => { printing = false; refresh(); });
    refresh();
  }

  return { S, choose, read, follow, refresh, start };
}

// Explorers of the site, see widgets/explorer.py: each holds its own data.
for (const root of all(".ltml-explorer")) explore(root, JSON.parse($("script", root).textContent)).start();
