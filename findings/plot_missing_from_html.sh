#!/usr/bin/env bash
# plotly 7.1.0 with nbconvert 7.17.2: a figure in a notebook that is run and converted to HTML.
# What it does: in a kernel the default renderer stores the figure under Plotly's own MIME type alone; the HTML
# exporter has no display for it, so the page has an empty place. Exit status 0, one warning in the log.
# Why it surprises: the same cell shows its figure in JupyterLab, and Plotly figures are HTML by nature.
# Consequence: course pages and reports made in CI lack all interactive figures.
# Remedy: plotly.io.renderers.default = "notebook_connected" (or "notebook") in the first cell; check the page
# for "newPlot".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'plotly==7.1.0' 'nbconvert==7.17.2' 'ipykernel==7.4.0'
venv/bin/python - <<'EOF'
import subprocess, sys
import nbformat
from nbformat.v4 import new_code_cell, new_notebook


def page(first):
    book = new_notebook(cells=[new_code_cell(first), new_code_cell(
        "import plotly.graph_objects as go\ngo.Figure(go.Bar(x=['tail'], y=[3])).show()")])
    nbformat.write(book, "book.ipynb")
    subprocess.run([sys.executable, "-m", "nbconvert", "--to", "html", "--execute", "book.ipynb"],
                   check=True, capture_output=True)
    return open("book.html").read()


subprocess.run([sys.executable, "-m", "ipykernel", "install", "--sys-prefix"], check=True, capture_output=True)
plain = page("pass")
named = page("import plotly.io\nplotly.io.renderers.default = 'notebook'")
print("expected: a drawn figure in both pages")
print(f"seen: default renderer: drawn {'newPlot' in plain}; renderer 'notebook': drawn {'newPlot' in named}")
assert "newPlot" not in plain and "newPlot" in named
EOF
