"""Watch a training while it goes on."""

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from ltml import plots
from ltml.runs import Run
from ltml.widgets.base import as_png

__all__ = ["LiveView"]


class LiveView:
    """Redraw the gradients and the mAP after every epoch of a training in a notebook.

    Example:
        >>> view = LiveView()  # then: ltml.fit(recipe, on_epoch=view)
    """

    def __init__(self):
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(max_width="100%"))
        self.text = ipywidgets.HTML()
        self._shown = False

    def __call__(self, run: Run) -> None:
        """Show the run so far; the first call displays the view."""
        last = run.metrics.iloc[-1]
        with plots.style():
            figure = Figure(figsize=(9, 4.2), dpi=90)
            plots.gradient_magnitudes(run, epoch=int(last.epoch), ax=figure.subplots())
            self.picture.value = as_png(figure)
        self.text.value = (
            f"epoch {last.epoch:.0f}: mAP {100 * last.mAP:.1f} (head {100 * last['head']:.1f}, "
            f"medium {100 * last.medium:.1f}, tail {100 * last['tail']:.1f})"
        )
        if not self._shown:
            display(ipywidgets.VBox([self.picture, self.text]))
            self._shown = True
