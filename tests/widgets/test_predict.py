"""A figure is shown to who has predicted it; wrong choices are answered, right ones counted."""

import matplotlib.pyplot as plt
import pytest

from ltml import InputError
from ltml.widgets import predict, prediction

CHOICES = {"cat": "the dog is <b>larger</b>", "dog": "it is larger"}


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """What is displayed, and what is filled in later."""
    prediction._GIVEN.clear()
    found = []

    class Place:
        def update(self, data, raw, metadata):
            found.append(("later", data))

    def display(obj, **options):
        found.append(("at once", obj))
        return Place()

    monkeypatch.setattr(prediction, "display", display)
    return found


def ask(monkeypatch, watched, *args, **options):
    monkeypatch.setattr(prediction, "is_watched", lambda: watched)
    with predict(*args, **options) as asked:
        plt.figure()
        print("a line")
    return asked


def test_the_figure_waits_for_an_answer(monkeypatch, shown):
    before = plt.get_fignums()
    asked = ask(monkeypatch, True, "Which?", CHOICES, answer="dog")
    assert plt.get_fignums() == before
    assert all(when == "at once" for when, _ in shown)
    cat, dog = asked.buttons
    cat.click()
    assert ("later", {"text/plain": "a line\n"}) in shown
    assert "Not so: the dog is &lt;b&gt;larger" in asked.text.value
    assert "0 of 1 predicted right so far." in asked.text.value
    dog.click()  # the first answer counts
    assert "Right: it is larger" in asked.text.value
    assert asked.right == 0


def test_right_answers_are_counted_and_a_question_asked_again_starts_anew(monkeypatch):
    for _ in range(2):
        ask(monkeypatch, True, "Which?", CHOICES, answer="dog").buttons[1].click()
    other = ask(monkeypatch, True, "How many?", answer=lambda: 40, within=0.25, why="Four tens.")
    other.number.value = 49.9
    other.buttons[0].click()
    assert "Right: it is 40. Four tens." in other.text.value
    assert "2 of 2 predicted right so far." in other.text.value


@pytest.mark.parametrize(
    ("given", "right"), [(40, True), (30, True), (50, True), (29.9, False), (-40, False)]
)
def test_a_number_is_right_within_its_tolerance(given, right):
    asked = predict("How many?", answer=40, within=0.25)
    assert asked.reply(given).startswith("Right" if right else "Not so")


def test_executed_as_a_whole_the_figure_is_shown_at_once(monkeypatch, shown):
    ask(monkeypatch, False, "Which?", CHOICES, answer="dog")
    question, line = (obj for _, obj in shown[-2:])
    assert question.data.count("<details") == 2
    assert (
        '<details class="right"><summary>dog</summary><p>Right: it is larger</p>' in question.data
    )
    assert "<b>larger" not in question.data
    assert line == {"text/plain": "a line\n"}


@pytest.mark.parametrize("answer", ["owl", lambda: "owl"])
def test_an_answer_must_be_among_the_choices(monkeypatch, answer):
    with pytest.raises(InputError, match="answer='owl' is not among the choices of 'Which\\?'"):
        ask(monkeypatch, False, "Which?", CHOICES, answer=answer)


def test_an_error_in_the_block_is_raised_and_leaves_no_figure():
    before = plt.get_fignums()

    def draw():
        with predict("Which?", CHOICES, answer="dog"):
            plt.figure()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw()
    assert plt.get_fignums() == before
