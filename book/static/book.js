"use strict";
// The figures that the notebooks left as JSON, see kernel/static_outputs.py.
for (const place of document.querySelectorAll(".live-figure")) {
  const { data, layout } = JSON.parse(place.querySelector("script").textContent);
  Object.assign(layout, { autosize: true, width: undefined, paper_bgcolor: "rgba(0,0,0,0)" });
  for (const axis of Object.values(layout).filter((part) => part?.categoryarray?.length > place.clientWidth / 22))
    Object.assign(axis, { dtick: undefined, nticks: Math.floor(place.clientWidth / 28) }); // as there is room
  Plotly.newPlot(place, data, layout, { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "" });
}
// Paper is white.
const { dataset } = document.documentElement;
addEventListener("beforeprint", () => { [dataset.shown, dataset.theme] = [dataset.theme, "light"]; });
addEventListener("afterprint", () => { dataset.theme = dataset.shown; });
