"use strict";
// A report of runs, around the figures of figures.js.
const D = JSON.parse($("#data").textContent); // what report.py wrote
const page = explore(document, D, {
  chosen() { if (D.photos.per_class) S.among = $("[data-key=among]").value = "cls"; wall(); },
  followed() { classTable(); answer(); wall(); },
  changed(control) {
    shown = 24;
    if (control.closest("#filters")) wall();
    return control.closest("#filters");
  },
}), { S, choose } = page;

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
  const untested = best ? a.last.filter((ap) => !Number.isFinite(ap)).length : 0;
  if (untested) lead.push(` ${untested.toLocaleString("en")} of the classes ${untested === 1 ? "has" : "have"} no test image and count${untested === 1 ? "s" : ""} in no mean.`);
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
    el("span", { className: "quiet" }, `${whole > 0 ? `of an equal share · AP ${percent(a.last[c])} · ` : "AP · "}${a.count[c].toLocaleString("en")} training image${a.count[c] === 1 ? "" : "s"}`))));

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
    const counts = D.photos.names.map((name, c) => [name, scored.counts.miss[c]]), rare = a.names.findLast((_, c) => Number.isFinite(a.last[c]));
    const [, missed] = counts.find(([name]) => name === rare) ?? [];
    if (missed !== undefined) go("photos", `${rare}: ${missed} missed ${missed === 1 ? "photo" : "photos"}`, `of the rarest class that was tested, by ${a.title}`, rare);
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

// The page -------------------------------------------------------------------------------------

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
S.among ??= "";
let theme;
addEventListener("beforeprint", () => { theme = document.documentElement.dataset.theme; document.documentElement.dataset.theme = "light"; });
addEventListener("afterprint", () => { if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme; });
page.start();
$("details").addEventListener("toggle", classTable);
$("#theme").onclick = () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; };
