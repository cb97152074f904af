"""A reader's answer gets the reply that a tutor would give; exercises are cut from one master."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ltml import InputError
from ltml.exercises import FILE, KEY, check, expect

ROOT = Path(__file__).resolve().parents[1]
KEYS = json.loads(FILE.read_text(encoding="utf-8"))
MISTAKES = [(name, *found) for name, key in KEYS.items() for found in key["mistakes"]]


def reply(capsys, name, answer):
    right = check(name, answer)
    return right, capsys.readouterr().out.strip()


def load_assignments():
    place = ROOT / "notebooks" / "assignments.py"
    spec = importlib.util.spec_from_file_location("assignments", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", KEYS)
def test_the_answer_is_right_and_a_mistake_is_foreseen(name, capsys):
    assert reply(capsys, name, KEYS[name]["answer"]) == (True, "right")
    assert KEYS[name]["mistakes"]


def test_questions_say_about_where_two_digits_are_enough():
    for path in (ROOT / "notebooks" / "masters").glob("*.ipynb"):
        question = ""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown" and not cell["metadata"].get("tags"):
                question = text
            for name in re.findall(r'expect\(\s*"([\d-]+)"', text):
                says = re.search(r"\babout (what|how|the)\b", question, re.IGNORECASE)
                assert bool(says) == KEYS[name]["about"], name


@pytest.mark.parametrize(("name", "said", "wrong"), MISTAKES)
def test_a_foreseen_mistake_gets_its_reply(name, said, wrong, capsys):
    assert reply(capsys, name, wrong) == (False, f"not yet: {said}")


@pytest.mark.parametrize(
    ("name", "answer", "said"),
    [
        # as people round: where the question says "about", two digits are enough
        ("05-1", 1.75, "right"),
        ("05-1", 1.8, "right"),
        ("05-1", 1.7, "right"),  # cut off
        ("05-1", 2, "not yet: two images, but not equally frequent"),
        ("02-1", 0.029, "right"),
        ("02-1", 0.02896, "right"),
        ("02-1", 0.03, "not yet: d loss / dz = d loss / dp * p (1 - p); for BCE that is p"),
        ("02-2", 62.5, "right"),
        ("02-2", 62, "right, give more digits"),
        ("02-2", 60, "not yet: p = n / N in all images, for those with the class and without"),
        ("04-1", 0.73, "right, give more digits"),
        ("04-1", 0.734, "right"),
        ("06-1", [-3.3, 5.2], "right"),
        ("00-4", [0.62, 0.48], "right"),
        ("02-3", [0.07, 0.13], "not yet: add positives and negatives"),
        ("02-3", [0.072, 0.13], "right"),
        # of every kind that numbers come in
        ("04-1", np.float32(0.73443), "right"),
        ("04-1", torch.tensor(0.73443, requires_grad=True), "right"),
        ("04-1", torch.tensor([0.73443]), "not yet: a single value is asked for"),
        ("06-2", np.int64(93), "right"),
        ("06-2", 93.0, "right"),
        ("01-4", ("Stays", " stays "), "right"),
        ("07-1", [{"owl"}, {"a/2.jpg"}], "right"),
        ("01-2", np.array([True, True, False, True, False]), "right"),
        ("01-2", [1, 1, 0, 1, 0], "not yet: write down"),  # no truth values
        ("04-2", torch.tensor([[0.75, 2.25], [1.125, 1.125]]), "right"),
        # off by a factor
        ("00-2", 80.5556, "not yet: 100 times as large: give a fraction, not percent"),
        ("02-2", 2 * 62.4835, "not yet: twice as large: was something counted twice?"),
        ("03-4", 7.06134 / 2, "not yet: half as large: was something left out?"),
        ("04-3", -6.774298, "not yet: the sign is the other way round"),
        ("00-4", [62.347, 47.772], "not yet: 100 times as large: give a fraction, not percent"),
        # no answer, or of another shape
        ("02-1", ..., "not answered yet: put your answer in place of ..."),
        ("00-4", [0.62, ...], "not answered yet: put your answer in place of ..."),
        ("00-4", 0.62, "not yet: 2 values are asked for, this is a single value"),
        ("00-4", [0.62], "not yet: 2 values are asked for, this is a list of 1"),
        ("02-1", [0.029], "not yet: a single value is asked for, this is a list of 1"),
        ("02-1", None, "not yet: give a number, a text, or a list of them"),
        ("02-1", "0.029", "not yet: give a number, not a text"),
        ("02-1", float("nan"), "not yet: d loss / dz"),
        ("02-1", float("inf"), "not yet: d loss / dz"),
        ("08-2", 0, "right"),
        ("08-2", False, "not yet: AP ranks the images of one class at a time"),
        ("09-1", torch.tensor([0.7222, 0.7222]), "right"),
    ],
)
def test_an_imprecise_or_wrong_answer_gets_a_tutors_reply(name, answer, said, capsys):
    right, found = reply(capsys, name, answer)
    assert found.startswith(said)
    assert right == found.startswith("right")


def test_what_a_notebook_expects_comes_before_what_was_kept(capsys):
    try:
        expect("02-1", 5.0, "five")
        assert reply(capsys, "02-1", 5) == (True, "right")
    finally:
        KEY.clear()


def test_an_exercise_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="there is no exercise '99-9'"):
        check("99-9", 1)


def test_the_committed_exercises_are_those_of_the_masters():
    import nbformat  # takes seconds, which collecting need not wait for

    assignments, seen = load_assignments(), set()
    for path in assignments.MASTERS:
        master = nbformat.read(path, 4)
        student = assignments.student(master)
        assert nbformat.read(ROOT / "notebooks" / "exercises" / path.name, 4) == student
        text = "\n".join(cell.source for cell in student.cells)
        assert "SOLUTION" not in text
        assert "expect(" not in text
        seen |= {c.metadata.nbgrader.grade_id for c in master.cells if "nbgrader" in c.metadata}
        cells = assignments.solution(master).cells
        code = [cell.source for cell in cells if cell.cell_type == "code"]
        answers = "\n".join(text for text in code if "check(" not in text)
        assert "..." not in answers
        assert "expect(" not in answers
    assert {f"check-{name}" for name in KEYS} == {name for name in seen if "check" in name}


@pytest.mark.slow
def test_nbgrader_gives_solutions_full_marks_and_empty_answers_none(tmp_path):
    pytest.importorskip("nbgrader", reason="pip install 'ltml[teach]'")
    assignments = load_assignments()
    assignments.MASTERS = [p for p in assignments.MASTERS if p.stem.startswith(("01", "05"))]
    assignments.course(tmp_path)
    for path in assignments.MASTERS:
        for who, kind in (("ada", "source"), ("nobody", "release")):
            target = tmp_path / "submitted" / who / path.stem / path.name
            target.parent.mkdir(parents=True)
            target.write_text((tmp_path / kind / path.stem / path.name).read_text())
        assignments.nbgrader(tmp_path, "autograde", path.stem)
    assignments.nbgrader(tmp_path, "export", "--to", "grades.csv")
    rows = [line.split(",") for line in (tmp_path / "grades.csv").read_text().splitlines()]
    score, most, who = (rows[0].index(n) for n in ("score", "max_score", "student_id"))
    marks = {(row[0], row[who]): (float(row[score]), float(row[most])) for row in rows[1:]}
    assert len(marks) == 4
    for (_, student), (points, full) in marks.items():
        assert points == (full if student == "ada" else 0)
