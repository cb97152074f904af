"""Write a page of runs' figures and tables, for people who would rather look than read code."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import jinja2
import pandas as pd

from ltml import plots
from ltml.errors import InputError
from ltml.runs import Run, table_of, write_atomically

__all__ = ["write_report"]

# The policy makes sure of it: the page asks for nothing outside itself, and runs no script.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
img { max-width: 100%; height: auto; }
figure { margin: 1.5rem 0; }
figcaption { color: #555; max-width: 50rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; }
th { border-bottom: 2px solid #888; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
summary { cursor: pointer; margin: 0.7rem 0; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>mAP in percent: the mean over classes of the step-wise average precision on the test split.
{{ bounds }} The gradient imbalance is the largest over the smallest total gradient of a class.</p>
<div class="wide">{{ overview }}</div>
{% for figure in figures %}{{ shown(figure) }}{% endfor %}
{% for run in runs %}
<h2>{{ run.name }}</h2>
{% if run.absent %}<p>Without a positive in the test split, so left out of the means:
{{ run.absent }}.</p>{% endif %}
{% if run.chance %}<p>Scored by chance, without a training image, but in the means:
{{ run.chance }}.</p>{% endif %}
{% for figure in run.figures %}{{ shown(figure) }}{% endfor %}
<details><summary>Every class</summary><div class="wide">{{ run.classes }}</div></details>
<details><summary>Recipe</summary><div class="wide">{{ run.recipe }}</div></details>
{% endfor %}
</body>
</html>
"""
_FIGURE = """<figure><img src="data:image/svg+xml;base64,{{ data }}" alt="{{ title }}">
<figcaption>{{ reading }}</figcaption></figure>
"""
_BOUNDS = (
    "Head classes have at least 100 training images, tail classes fewer than 20, medium ones lie "
    "between."
)


def write_report(runs: Sequence[Run], out: str | Path) -> Path:
    """Write one self-contained HTML page: no script, no request to anywhere.

    Args:
        runs: one run or several; figures across runs are left out where their classes differ.
        out: file to write.

    Returns:
        the file.

    Raises:
        InputError: without a run, or if ``out`` is a folder.
    """
    if not runs:
        raise InputError("no run was given; give folders of runs, such as runs/demo/*")
    out = Path(out)
    if out.is_dir():
        raise InputError(f"out {str(out)!r} is a folder; give a file, such as report.html")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    figure = environment.from_string(_FIGURE)
    page = environment.from_string(_PAGE).render(
        title=f"{runs[0].config['data']['name']}: {', '.join(run.name for run in runs)}",
        bounds=_BOUNDS,
        overview=_table(table_of(runs).rename(columns=lambda name: name.replace("_", " "))),
        figures=_across(runs),
        runs=[_of(run) for run in runs],
        shown=lambda parts: jinja2.utils.markupsafe.Markup(figure.render(**parts)),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda part: part.write_text(page, encoding="utf-8"))
    return out


def _across(runs: Sequence[Run]) -> list[dict]:
    figures = [
        _figure(plots.group_bars, runs, reading="What each run learned, by group of classes."),
        _figure(plots.label_counts, runs[0], reading="Training images of each class."),
    ]
    if len({frozenset(run.classes["class"]) for run in runs}) == 1:
        reading = "Average precision of each class, the commonest on the left."
        figures.insert(1, _figure(plots.class_ap, runs, reading=reading))
    return figures


def _of(run: Run) -> dict:
    classes = run.classes.assign(ap=(100 * run.classes.ap).round(1))
    recipe = {key: str(value) for key, value in run.recipe.items() if value is not None}
    recipe |= {key: str(run.summary[key]) for key in ("torch", "device") if key in run.summary}
    return {
        "name": run.name,
        "chance": ", ".join(run.scored_by_chance),
        "absent": ", ".join(map(str, run.summary.get("classes_without_positives", []))),
        "figures": [
            _figure(
                plots.gradient_magnitudes,
                run,
                reading="The gradient that each class received over the training, from images that "
                "hold it (filled) and from all others (hollow).",
            ),
            _figure(
                plots.gradient_heatmap,
                run,
                reading="Epoch by epoch, each class's share of the gradient against an equal one.",
            ),
        ],
        "classes": _table(classes),
        "recipe": _table(pd.DataFrame({"setting": recipe.keys(), "value": recipe.values()})),
    }


def _figure(draw, *args, reading: str) -> dict:
    import matplotlib.pyplot as plt

    fig, ax = draw(*args)
    out = BytesIO()
    with plots.style():
        fig.savefig(out, format="svg", metadata={"Date": None})
    title = ax.get_title(loc="left") or ax.get_title()
    plt.close(fig)
    return {
        "data": base64.b64encode(out.getvalue()).decode("ascii"),
        "title": title,
        "reading": reading,
    }


def _table(table: pd.DataFrame):
    """Return the table as HTML, escaped by pandas."""
    html = table.to_html(index=False, na_rep="-", border=0, float_format="{:.4g}".format)
    return jinja2.utils.markupsafe.Markup(html)
