"""Every notebook runs from a clean kernel, within the time it states, and shows no error."""

import json
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1] / "notebooks"
COURSE = sorted(ROOT.glob("*.ipynb"))
EXERCISES = sorted((ROOT / "exercises").glob("*.ipynb"))
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
ALL = [*COURSE, *EXERCISES, *SOLUTIONS]

COURSE_SECONDS = 8 * 60
LONGEST_SECONDS = 2 * 60


def name_of(path):
    return path.relative_to(ROOT).with_suffix("").as_posix()


def source(cell):
    return "".join(cell["source"])


def stated_seconds(book):
    found = re.search(r"\*At most (\d+) (second|minute)", source(book["cells"][0]))
    assert found, "the first cell says: *At most N seconds (or minutes) on 2 CPU cores. ...*"
    return int(found[1]) * (60 if found[2] == "minute" else 1)


def execute(book, folder, *, timeout=None):
    """Run a notebook as Jupyter would; return its outputs, those inside widgets included."""
    client = NotebookClient(
        book,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        allow_errors=True,
    )
    client.execute()
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    # Output widgets swallow what is raised inside them (Output.__exit__): it is in their state.
    for state in client.widget_state.values():
        outputs += state.get("outputs", [])
    return outputs


def draws(code):
    """Whether a cell of the course ends in a figure."""
    return bool(re.search(r"^(?:[\w, ]+ = )?(?:plots\.(?!style)\w+|plt\.subplots)\(", code, re.M))


def errors(outputs):
    return [f"{out['ename']}: {out['evalue']}" for out in outputs if out["output_type"] == "error"]


def printed(outputs):
    return "".join(out["text"] for out in outputs if out["output_type"] == "stream")


def test_the_course_is_whole():
    assert [path.stem[:2] for path in COURSE] == [f"{n:02}" for n in range(8)]
    assert [path.name for path in EXERCISES] == [path.name for path in SOLUTIONS]
    assert [path.name for path in EXERCISES] == [path.name for path in COURSE]
    stated = [stated_seconds(json.loads(path.read_text())) for path in COURSE]
    assert max(stated) <= LONGEST_SECONDS


@pytest.mark.parametrize("path", ALL, ids=name_of)
def test_is_committed_clean(path):
    book = json.loads(path.read_text())
    assert book["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in book["metadata"]
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
    assert stated_seconds(book) <= LONGEST_SECONDS


def test_all_install_themselves_alike_where_ltml_is_missing():
    def first_code(path):
        cells = json.loads(path.read_text())["cells"]
        return next(source(cell) for cell in cells if cell["cell_type"] == "code")

    assert len({first_code(path) for path in ALL}) == 1
    assert "find_spec" in first_code(ALL[0])


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
def test_solutions_answer_the_very_checks_of_the_exercises(path):
    def checks(path):
        cells = json.loads(path.read_text())["cells"]
        return [source(c) for c in cells if c["cell_type"] == "code" and "check(" in source(c)]

    asked = checks(ROOT / "exercises" / path.name)
    assert asked == checks(path)
    assert len(asked) >= 2


def test_an_error_that_a_widget_swallowed_is_found(tmp_path):
    code = "import ipywidgets\nout = ipywidgets.Output()\nwith out:\n    1 / 0\nout"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    assert errors(execute(book, tmp_path)) == ["ZeroDivisionError: division by zero"]


@pytest.mark.parametrize("path", EXERCISES, ids=name_of)
@pytest.mark.slow
def test_unanswered_exercises_run_and_say_so(path, tmp_path):
    outputs = execute(nbformat.read(path, as_version=4), tmp_path, timeout=LONGEST_SECONDS)
    assert not errors(outputs)
    assert "not answered yet" in printed(outputs)
    assert "right" not in printed(outputs).splitlines()


@pytest.mark.parametrize("path", SOLUTIONS, ids=name_of)
@pytest.mark.slow
def test_solutions_are_right(path, tmp_path):
    book = nbformat.read(path, as_version=4)
    started = time.monotonic()
    outputs = execute(book, tmp_path, timeout=LONGEST_SECONDS)
    seconds = time.monotonic() - started
    assert not errors(outputs)
    lines = printed(outputs).splitlines()
    assert lines.count("right") == sum(source(c).count("check(") for c in book.cells)
    assert not [line for line in lines if line.startswith("not ")]
    assert seconds <= stated_seconds(book)


@pytest.fixture(scope="module")
def seconds_of_course():
    return {}


@pytest.mark.parametrize("path", COURSE, ids=name_of)
@pytest.mark.slow
def test_runs_without_error_in_its_stated_time(path, tmp_path, seconds_of_course):
    book = nbformat.read(path, as_version=4)
    started = time.monotonic()
    outputs = execute(book, tmp_path)
    seconds = time.monotonic() - started
    seconds_of_course[path] = seconds
    assert not errors(outputs)
    for cell in book.cells:
        if cell.cell_type == "code" and draws(source(cell)):
            shown = [out for out in cell.outputs if "image/png" in out.get("data", {})]
            assert shown, f"this cell shows no figure:\n{source(cell)}"
    assert seconds <= stated_seconds(book), f"took {seconds:.0f} s"


@pytest.mark.slow
def test_the_course_keeps_its_time(seconds_of_course):
    print({path.stem: round(seconds) for path, seconds in seconds_of_course.items()})
    assert sum(seconds_of_course.values()) <= COURSE_SECONDS
