"use strict";
// Plotly is kept compressed, which makes a page without photos a third as large. A script's text may
// run by its hash in the page's policy, wherever it comes from.
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const plotly = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  for (const textContent of [plotly, document.getElementById("code").textContent]) document.body.append(Object.assign(document.createElement("script"), { textContent }));
})().catch(() => {
  document.querySelector("main").prepend(Object.assign(document.createElement("p"), { className: "error", textContent: "This browser is too old to unpack the page's figures; open it in one of 2023 or later." }));
});
