"""Fit the texts of a figure into it, whatever its size: nothing cut off, no two on each other."""

import math
from itertools import pairwise
from textwrap import wrap

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

_LEAST = 0.72  # of their type size, to which names on an axis shrink before some are left out
_LINES = 3  # of a title


def shorten(name: str, most: int) -> str:
    """Cut a name to so many characters."""
    name = " ".join(str(name).split())
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


class Fitted(ConstrainedLayoutEngine):
    """Lay out a figure, then break titles, and thin out names, that the axes have no room for.

    It does so whenever the figure is drawn, so that it holds at any later size too.
    """

    def __init__(self):
        super().__init__()
        self._names: list[tuple] = []  # axis, places, names, how they look
        self._spans: list[tuple] = []  # axis, places, lengths, names from long to short
        self._logs: list[Axis] = []
        self._whole: dict[Text, tuple[str, str]] = {}  # text -> as it was, as it was broken

    def name(self, axis: Axis, places, names, **options) -> None:
        """Name places on an axis: all of them, or every second, third ... as there is room."""
        axis.set_ticks(places, names, **options)
        if labels := axis.get_ticklabels():
            options.setdefault("fontsize", labels[0].get_fontsize())
            self._names.append((axis, list(places), list(names), options))

    def span(self, axis: Axis, places, lengths, names) -> None:
        """Name stretches of an axis; ``names`` are lists from the longest to the shortest."""
        self._spans.append((axis, list(places), list(lengths), names))
        axis.set_ticks(places, names[0])

    def log(self, axis: Axis) -> None:
        """Write the numbers between powers of ten where there is room."""
        self._logs.append(axis)

    def execute(self, fig: Figure) -> None:
        """Lay out ``fig``."""
        for ax in fig.axes:  # a title beyond the figure's edge would leave the axes no width
            for title in (ax.title, ax._left_title, ax._right_title):
                self._break(title, 0.8 * fig.bbox.width, False)
        super().execute(fig)
        before = None
        for _ in range(8):  # what is broken or left out makes room, or takes it
            now = self._fit(fig)
            if now == before:
                break
            before = now
            super().execute(fig)

    def _fit(self, fig: Figure) -> list:
        state = []
        for each in self._names:
            state.append(_thin(*each))
        for axis in self._logs:
            state.append(_fit_log(axis))
        for each in self._spans:
            state.append(_fit_spans(*each))
        shown = [ax for ax in fig.axes if ax.get_visible()]
        lefts = sorted(ax.bbox.x0 for ax in shown)
        for ax in shown:
            right = next((x for x in lefts if x > ax.bbox.x1), fig.bbox.x1)
            room = right - ax.bbox.x0 - 0.02 * fig.bbox.width
            for title in (ax.title, ax._left_title, ax._right_title):
                state.append(self._break(title, room, False))
            state.append(self._break(ax.yaxis.label, ax.bbox.height, True))
            middle = (ax.bbox.x0 + ax.bbox.x1) / 2  # under which the label stands
            beside = min(middle - fig.bbox.x0, fig.bbox.x1 - middle) - 0.01 * fig.bbox.width
            state.append(self._break(ax.xaxis.label, 2 * beside, False))
        for title in (fig._suptitle, fig._supxlabel):
            if title is not None:
                state.append(self._break(title, 0.96 * fig.bbox.width, False))
        return state

    def _break(self, text: Text, room: float, upright: bool) -> str:
        """Break a text into lines that fit into some pixels."""
        shown = text.get_text()
        whole, broken = self._whole.get(text, (shown, shown))
        if shown != broken:  # somebody has set another since
            whole = shown
        if not whole.strip():
            return whole
        text.set_text(whole)
        text.set_wrap(False)
        longest = max(map(len, whole.split("\n")))
        per_letter = _size(text)[upright] / longest
        fits = whole
        for letters in range(min(longest, math.ceil(1.3 * room / per_letter)), 3, -1):
            lines = [x for line in whole.split("\n") for x in wrap(line, letters)]
            if len(lines) > _LINES:
                lines = [*lines[: _LINES - 1], shorten(" ".join(lines[_LINES - 1 :]), letters)]
            fits = "\n".join(lines)
            text.set_text(fits)
            if _size(text)[upright] <= room:
                break
        self._whole[text] = (whole, fits)
        return fits


def _size(text: Text) -> tuple[float, float]:
    box = text.get_window_extent()
    return box.width, box.height


def _across(axis: Axis, labels: list[Text]) -> float:
    """Pixels along the axis that a label takes."""
    if not labels:
        return 1.0
    turned = labels[0].get_rotation() % 180
    line = max(_size(label)[axis.axis_name == "y"] for label in labels)
    if axis.axis_name == "y" or turned in (0, 90):
        return line
    return (
        1.1 * labels[0].get_fontsize() * labels[0].figure.dpi / 72 / math.sin(math.radians(turned))
    )


def _thin(axis: Axis, places: list, names: list, options: dict) -> int:
    """Name every n-th place, the least n at which names keep apart; return n."""
    box = axis.axes.bbox
    length = box.width if axis.axis_name == "x" else box.height
    low, high = axis.get_view_interval()
    spacing = length * abs(places[1] - places[0]) / abs(high - low) if len(places) > 1 else length
    font = options["fontsize"]
    axis.set_ticks(places, names, **options)
    used = _across(axis, axis.get_ticklabels())
    # Smaller type first, where that is enough for all.
    smaller = max(min(1, spacing / (1.04 * used)), _LEAST)
    step = max(1, math.ceil(1.04 * used * smaller / spacing))
    size = font * (smaller if step == 1 or smaller == _LEAST else 1)
    axis.set_ticks(places[::step], names[::step], **options | {"fontsize": size})
    return step


def _fit_spans(axis: Axis, places: list, lengths: list, names: list) -> int:
    low, high = axis.get_view_interval()
    pixel = axis.axes.bbox.width / abs(high - low)
    for i, choice in enumerate(names):
        axis.set_ticks(places, choice)
        labels = axis.get_ticklabels()
        ends = [(pixel * p, _size(t)[0] / 2) for p, t in zip(places, labels, strict=True)]
        gaps = [(b - s) - (a + r) for (a, r), (b, s) in pairwise(ends)]
        if all(gap > 4 for gap in gaps):
            return i
    kept = [i for i, n in enumerate(lengths) if n * pixel > _size(labels[i])[0]]
    axis.set_ticks([places[i] for i in kept], [names[-1][i] for i in kept])
    return len(names)


def _fit_log(axis: Axis) -> int:
    """Write 1, 2, 5; or powers of ten alone, or every second, ..., so that they keep apart."""
    low, high = axis.get_view_interval()
    box = axis.axes.bbox
    length = box.width if axis.axis_name == "x" else box.height
    decade = length / max(math.log10(high / low), 1e-9)
    axis.set_minor_formatter("{x:g}")
    used = 1.1 * _across(axis, [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)])
    step = 0
    if used > 0.3 * decade:  # 1 to 2, and 5 to 10, are the closest
        axis.set_minor_formatter(NullFormatter())
        step = max(1, math.ceil(used / decade))
        axis.set_major_locator(LogLocator(base=10.0**step))
        if high / low < 10:  # no power of ten in view
            axis.set_major_locator(MaxNLocator(max(1, int(length / used)), steps=[1, 2, 5, 10]))
    return step
