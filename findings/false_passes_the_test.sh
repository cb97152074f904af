#!/usr/bin/env bash
# nbgrader 0.9.6: an autograded test cell whose last line is the value False.
# What it does: full marks. Points are lost by an exception, or by a number as the last line (partial marks); a cell that
# ends in a comparison shows False below it and passes, though False is a number in Python.
# Why it surprises: a cell that ends in 0 is marked 0, one that ends in False is marked in full.
# Consequence: tests written as `mean_ap(Y, P) == 0.5` or `np.allclose(a, b)` never fail anybody.
# Remedy: assert in every test cell; run the test cells once against an empty solution and expect no points.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'nbgrader==0.9.6' 'ipykernel==7.4.0'
venv/bin/python - <<'EOF'
import subprocess, sys, warnings

warnings.simplefilter("ignore")
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.preprocessors import Execute
from nbgrader.utils import determine_grade

subprocess.run([sys.executable, "-m", "ipykernel", "install", "--sys-prefix"], check=True, capture_output=True)


def marks(source):
    cell = new_code_cell(source)
    cell.metadata.nbgrader = {"grade": True, "grade_id": "test", "locked": True, "points": 3, "solution": False,
                              "schema_version": 3, "task": False, "cell_type": "code"}
    book = new_notebook(cells=[cell])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return determine_grade(Execute().preprocess(book, {})[0].cells[0])[0]


seen = {source: marks(source) for source in ("1 + 1 == 3", "0", "assert 1 + 1 == 3")}
print("expected: 0 of 3 points for each")
print(f"seen: {seen}")
assert seen == {"1 + 1 == 3": 3, "0": 0, "assert 1 + 1 == 3": 0}
EOF
