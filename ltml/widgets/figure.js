// Plotly comes beside the figure that needs it first, and leaves its model then: a notebook that saves its widgets keeps none of
// the five megabytes. A page that was loaded again asks for it.
async function library(model) {
  const text = model.get("_library");
  if (text) {
    globalThis.ltmlPlotly ??= import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    model.set("_library", "");
    model.save_changes();
  }
  if (!globalThis.ltmlPlotly) {
    await new Promise((resolve) => {
      model.on("change:_library", resolve);
      model.send("library");
    });
    return library(model);
  }
  return (await globalThis.ltmlPlotly).default();
}

/** Say that the output around a figure is alive, so that its picture hides, see explorer.py. */
function mark(el, tries = 100) {
  const place = el.closest(".jp-OutputArea-child");
  if (place) place.classList.add("ltml-alive");
  else if (tries) requestAnimationFrame(() => mark(el, tries - 1));
}

export default () => {
  let figure;
  const ready = (model) => (figure ??= library(model).then((made) => (made.initialize({ model }), made)));
  return {
    // What must be asked for comes only after this.
    initialize: ({ model }) => (model.get("_library") || globalThis.ltmlPlotly ? ready(model).then(() => {}) : undefined),
    async render({ model, el }) {
      const { render } = await ready(model);
      mark(el);
      return render({ model, el });
    },
  };
};
