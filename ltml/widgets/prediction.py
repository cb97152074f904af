"""Ask what a figure will show, and show it to who has answered."""

from collections.abc import Callable, Mapping
from html import escape

import ipywidgets
import matplotlib.pyplot as plt
from IPython.display import HTML, display
from IPython.utils.capture import capture_output

from ltml.core.errors import InputError
from ltml.widgets.figure import is_watched

_GIVEN: dict[str, bool] = {}  # question -> whether its first answer was right


class predict:  # noqa: N801 - it is used as a function, in a with statement
    """Ask a question; show what the block draws once it is answered.

    Where a notebook is executed as a whole the figure is shown at once, below the question and its
    choices, each of which unfolds to its reply.

    Args:
        question: question about what the block will show.
        choices: choice -> the reply to who chooses it, the right one among them; without choices a
            number is asked for.
        answer: the right choice, or number, computed so that question and figure always agree; or a
            function of nothing that returns it, called after the block.
        within: largest relative deviation of a number that counts as right.
        why: the reply to a number.

    Raises:
        InputError: for an answer that is not among the choices.

    Example:
        >>> asked = predict("Which is rarer?", {"cat": "no", "owl": "yes"}, answer="owl")
        >>> asked.reply("cat"), asked.right
        ('Not so: no', 0)
    """

    def __init__(
        self,
        question: str,
        choices: Mapping[str, str] | None = None,
        *,
        answer: str | float | Callable[[], str | float],
        within: float = 0.25,
        why: str = "",
    ):
        self.question, self.within, self.why = question, within, why
        self.choices, self._answer = dict(choices or {}), answer
        self._shown, self._places = [], []
        _GIVEN.pop(question, None)
        if not callable(answer):
            self._settle()

    def _settle(self) -> None:
        answer = self._answer() if callable(self._answer) else self._answer
        if self.choices and answer not in self.choices:
            raise InputError(
                f"answer={answer!r} is not among the choices of {self.question!r}; add it, with "
                f"its reply, to {', '.join(map(repr, self.choices))}"
            )
        self.answer = answer if self.choices else float(answer)

    @property
    def right(self) -> int:
        """How many questions of this session were answered right at the first attempt."""
        return sum(_GIVEN.values())

    def reply(self, given: str | float) -> str:
        """Take an answer, count it if it is the first one, and return what a tutor says."""
        if self.choices:
            right, said = given == self.answer, self.choices[given]
        else:
            right = abs(given - self.answer) <= self.within * abs(self.answer)
            said = f"it is {self.answer:.3g}. {self.why}".strip()
        _GIVEN.setdefault(self.question, right)
        return f"{'Right' if right else 'Not so'}: {said}"

    def to_html(self) -> str:
        """Return the question, with replies that unfold; the site's script lets the figure wait."""
        number = "" if self.choices else f' data-answer="{self.answer}" data-within="{self.within}"'
        replies = self.choices or {"What it is": f"{self.answer:.3g}. {self.why}"}
        parts = []
        for choice, said in replies.items():
            right = choice == self.answer
            begin = ("Right: " if right else "Not so: ") if self.choices else ""
            parts.append(
                f'<details class="{"right" if right else "wrong"}"><summary>{escape(choice)}'
                f"</summary><p>{escape(begin + said)}</p></details>"
            )
        question = f"<p><b>Predict first.</b> {escape(self.question)}</p>"
        return f'<div class="ltml-predict"{number}>{question}{"".join(parts)}</div>'

    def __enter__(self):
        self._figures = set(plt.get_fignums())
        self._capture = capture_output()
        self._captured = self._capture.__enter__()
        return self

    def __exit__(self, kind, error, trace) -> None:
        new = [n for n in plt.get_fignums() if n not in self._figures]
        if kind is None:
            for number in new:
                display(plt.figure(number))
        for number in new:
            plt.close(number)
        self._capture.__exit__(kind, error, trace)
        self._shown = [(each.data, each.metadata) for each in self._captured.outputs]
        if self._captured.stdout:
            self._shown.append(({"text/plain": self._captured.stdout}, {}))
        if kind is None:
            self._settle()
            self._ask()

    def _ask(self) -> None:
        if not is_watched():
            display(HTML(self.to_html()))
            for data, metadata in self._shown:
                display(data, metadata=metadata, raw=True)
            return
        self.text = ipywidgets.HTML()
        if self.choices:
            look = {"layout": ipywidgets.Layout(width="auto", height="auto")}
            self.buttons = [ipywidgets.Button(description=c, **look) for c in self.choices]
            row = self.buttons
        else:
            self.number = ipywidgets.FloatText(layout=ipywidgets.Layout(width="10em"))
            self.buttons = [ipywidgets.Button(description="That is my guess")]
            row = [self.number, *self.buttons]
        for button in self.buttons:
            button.on_click(self._take)
        wrap = ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px")
        question = ipywidgets.HTML(f"<p><b>Predict first.</b> {escape(self.question)}</p>")
        display(ipywidgets.VBox([question, ipywidgets.Box(row, layout=wrap), self.text]))
        for _ in self._shown:  # filled later, so that a saved notebook keeps what was shown
            self._places.append(display({"text/plain": ""}, raw=True, display_id=True))

    def _take(self, button) -> None:
        said = self.reply(button.description if self.choices else self.number.value)
        tally = f"{self.right} of {len(_GIVEN)} predicted right so far."
        self.text.value = f"<p>{escape(said)} <small>{tally}</small></p>"
        if self.choices and button.description == self.answer:
            button.button_style = "success"
        for place, (data, metadata) in zip(self._places, self._shown, strict=True):
            place.update(data, metadata=metadata, raw=True)
        self._places, self._shown = [], []
