"use strict";
// The figures that the notebooks left as JSON, see kernel/static_outputs.py.
for (const place of document.querySelectorAll(".live-figure")) {
  const { data, layout } = JSON.parse(place.querySelector("script").textContent);
  Object.assign(layout, { autosize: true, width: undefined, paper_bgcolor: "rgba(0,0,0,0)" });
  for (const axis of Object.values(layout).filter((part) => part?.categoryarray?.length > place.clientWidth / 22))
    Object.assign(axis, { dtick: undefined, nticks: Math.floor(place.clientWidth / 28) }); // as there is room
  Plotly.newPlot(place, data, layout, { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" });
}
// A figure waits for a prediction, see ltml/widgets/predict.py; the first one counts.
let asked = 0, right = 0;
for (const box of document.querySelectorAll(".ltml-predict")) {
  const cell = box.closest(".cell_output, .jp-OutputArea"), { answer, within } = box.dataset, tally = document.createElement("p");
  const take = (hit) => {
    if (tally.isConnected) return;
    asked += 1;
    right += hit;
    tally.textContent = `${right} of ${asked} predicted right on this page so far.`;
    tally.className = "tally";
    box.append(tally);
    cell.classList.remove("waits");
    dispatchEvent(new Event("resize"));
  };
  cell.classList.add("waits");
  for (const choice of box.querySelectorAll("details")) choice.addEventListener("toggle", () => choice.open && take(choice.classList.contains("right")));
  if (answer === undefined) continue;
  const form = document.createElement("form"), said = box.querySelector("details");
  form.innerHTML = '<input type="number" step="any" required aria-label="your guess"> <button>That is my guess</button>';
  said.hidden = true;
  said.before(form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const hit = Math.abs(form.firstChild.value - answer) <= within * Math.abs(answer);
    take(hit);
    said.hidden = false;
    said.open = true;
    said.querySelector("summary").textContent = hit ? "Right: it is" : "Not so: it is";
  });
}
// Paper is white.
const { dataset } = document.documentElement;
addEventListener("beforeprint", () => { [dataset.shown, dataset.theme] = [dataset.theme, "light"]; });
addEventListener("afterprint", () => { dataset.theme = dataset.shown; });
