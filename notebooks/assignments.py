"""Make the exercises from their masters: student versions, solutions, keys, a course for nbgrader.

A master holds everything of an exercise in nbgrader's cell metadata: the answer between BEGIN and
END SOLUTION, what is expected between BEGIN and END HIDDEN TESTS, and a word on why in cells tagged
"solution". ``make assignments`` runs every master, keeps what it expects in ltml/exercises.json,
writes notebooks/exercises (committed) and build/assignments (not), and where nbgrader is installed
has it release the same.
"""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MASTERS = sorted((HERE / "masters").glob("*.ipynb"))
OUT = ROOT / "build" / "assignments"
_REGION = r"^[ \t]*### BEGIN {0}\n(.*?)^[ \t]*### END {0}[ \t]*\n?"


def student(master):
    """Return what a student gets: questions and empty answers."""
    book = _of(master, lambda cell: "solution" not in cell.metadata.get("tags", ()))
    for cell in book.cells:
        for kind in ("SOLUTION", "HIDDEN TESTS"):
            cell.source = _region(kind).sub("", cell.source + "\n").strip("\n")
    return book


def solution(master):
    """Return the answers, with a word on why; what is checked stays hidden."""
    book = _of(master, lambda cell: True)
    book.cells[0].source = book.cells[0].source.replace("# Exercises:", "# Solutions:", 1)
    for cell in book.cells:
        text = cell.source + "\n"
        if found := _region("SOLUTION").search(text):
            given = [line for line in text[: found.start()].splitlines() if "..." not in line]
            # Of an unanswered list over several lines, its first and last line are left.
            given = [line for line in given if not re.match(r"answer = \[$|\]", line)]
            text = "\n".join([*given, found[1] + text[found.end() :]])
        cell.source = _region("HIDDEN TESTS").sub("", text).strip("\n")
    return book


def for_nbgrader(master):
    """Return what nbgrader makes its release of and grades by."""
    book = copy.deepcopy(master)
    book.cells = [c for c in book.cells if "solution" not in c.metadata.get("tags", ())]
    return book


def _region(kind: str) -> re.Pattern:
    return re.compile(_REGION.format(kind), re.M | re.S)


def _of(master, wanted):
    book = copy.deepcopy(master)
    book.cells = [cell for cell in book.cells if wanted(cell)]
    for cell in book.cells:
        cell.metadata = {}
    return book


def keys(master) -> dict:
    """Run a master; return what its exercises expect."""
    book = copy.deepcopy(master)
    book.cells.append(
        nbformat.v4.new_code_cell(
            "import json\nfrom ltml.exercises import KEY\nprint('KEY', json.dumps(KEY))"
        )
    )
    NotebookClient(book, timeout=900, kernel_name="python3").execute()
    lines = [
        line
        for cell in book.cells
        for out in cell.get("outputs", [])
        for line in out.get("text", "").splitlines()
    ]
    wrong = [line for line in lines if line.startswith(("not ", "right,"))]
    assert not wrong, f"its own solutions are answered: {wrong}"
    return json.loads(lines[-1].removeprefix("KEY "))


def course(folder: Path) -> None:
    """Lay out a course folder for nbgrader, and have it make the release."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in MASTERS:
        assignment = folder / "source" / path.stem
        assignment.mkdir(parents=True)
        nbformat.write(for_nbgrader(nbformat.read(path, 4)), assignment / path.name)
    config = "c = get_config()\nc.CourseDirectory.course_id = 'ltml'\n"
    config += "c.ClearSolutions.code_stub = {'python': ''}\n"
    config += "c.ClearSolutions.enforce_metadata = True\nc.ExecutePreprocessor.timeout = 900\n"
    (folder / "nbgrader_config.py").write_text(config)
    for path in MASTERS:
        nbgrader(folder, "generate_assignment", path.stem)


def nbgrader(folder: Path, *command: str) -> None:
    """Run nbgrader in a course folder."""
    # It calls alembic by name, which stands beside this Python, activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "nbgrader", *command]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PATH": path})


def main() -> None:
    """Make everything."""
    found = {}
    for path in MASTERS:
        master = nbformat.read(path, 4)
        found |= keys(master)
        nbformat.write(student(master), HERE / "exercises" / path.name)
        target = OUT / "solutions" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(solution(master), target)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    (ROOT / "ltml" / "exercises.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(found)} exercises; solutions: {OUT / 'solutions'}")
    if find_spec("nbgrader"):
        course(OUT / "course")
        print(f"release for students: {OUT / 'course' / 'release'}")
    else:
        print("for a course graded by nbgrader: pip install -e '.[teach]', and again")


if __name__ == "__main__":
    main()
