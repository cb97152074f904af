"use strict";
// Beside photos Plotly is kept compressed, which takes 3 MB less. A script's text may run by
// its hash in the page's policy, wherever it comes from.
(async () => {
  const text = atob(document.getElementById("plotly").textContent), packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i); // Uint8Array.from takes ten times as long
  const plotly = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  for (const textContent of [plotly, document.getElementById("code").textContent]) document.body.append(Object.assign(document.createElement("script"), { textContent }));
})().catch(() => {
  document.querySelector("main").prepend(Object.assign(document.createElement("p"), { className: "error", textContent: "This browser is too old to unpack the page's figures; open it in one of 2023 or later." }));
});
