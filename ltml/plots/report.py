"""Write one page of live plots and tables of runs, which needs nothing beside it."""

import base64
import gzip
import hashlib
import json
import re
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from getpass import getuser
from html import escape
from itertools import count
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from ltml.core.errors import InputError
from ltml.core.files import check_replaceable, make_parent, write_atomically
from ltml.core.labels import GROUPS, LabelMatrix
from ltml.core.options import fitted
from ltml.plots import captions, frames, live
from ltml.plots.photos import mistakes_of
from ltml.runs.run import Run, table_of

_PAGE = Path(__file__).with_name("page")
_SCRIPTS = ("figures", "page")
_IDS = count()  # of lists of names: a page may hold several explorers
_RIDGES = (0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_DIGITS = {"mAP": 1, **dict.fromkeys(GROUPS, 1), "gradient_imbalance": 2, "seconds": 0, "seed": 0}


def write_report(
    runs: Sequence[Run],
    out: str | Path,
    *,
    labels: LabelMatrix | Mapping[str, LabelMatrix] | None = None,
    images: int = 0,
) -> Path:
    """Write a page that shows runs, and answers to sliders, without a kernel or a server.

    The page is one file that asks for nothing outside it; a content security policy forbids any
    script but its own.

    Args:
        runs: one run or several.
        out: file to write.
        labels: training labels, or name -> training labels; the page then shows how often samplers
            sample each class.
        images: thumbnails of each class and run, of its worst misses and false alarms; 0: none, and
            no name of an image either. The page says which.

    Raises:
        InputError: without a run, if images are asked for and no run keeps their scores, or if
            ``out`` is a folder or some other file.
    """
    if not runs:
        raise InputError("no run was given; give folders of runs, such as runs/demo")
    images = fitted("images", images, int)
    if images < 0:
        raise InputError(f"images={images}: give 0 for none, or how many of each class")
    out = Path(out)
    check_replaceable(out, '<meta name="generator" content="ltml">')
    named = frames.runs_of(runs)
    names = list(named)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    labels = {"labels": labels} if isinstance(labels, LabelMatrix) else labels or {}
    data = _content(named, labels, images)
    parts = {
        "title": escape(f"{runs[0].config['data']['name']}: {shown}"),
        "style": (_PAGE / "page.css").read_text(encoding="utf-8"),
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    code = "".join((_PAGE / f"{n}.js").read_text(encoding="utf-8") for n in _SCRIPTS)
    scripts, parts["scripts"] = _scripts(get_plotlyjs(), code, packed=images > 0)
    digests = [hashlib.sha256(script.encode()).digest() for script in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    parts["policy"] = (
        f"default-src 'none'; script-src {hashes}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    # In one pass, so that nothing in the data is taken for a place in the page.
    template = (_PAGE / "page.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
    make_parent(out)
    write_atomically(out, lambda part: part.write_text(page, encoding="utf-8", newline="\n"))
    return out


def _scripts(plotly: str, code: str, *, packed: bool) -> tuple[list[str], str]:
    """What may run, and how the page holds it: packed beside photos, where size matters more than
    the half second that it takes to unpack."""
    if not packed:
        scripts = [plotly, code]
        return scripts, "\n".join(f"<script>{script}</script>" for script in scripts)
    start = (_PAGE / "start.js").read_text(encoding="utf-8")
    kept = [("plotly", _packed(plotly)), ("code", code)]
    lines = [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in kept]
    return [start, plotly, code], "\n".join([*lines, f"<script>{start}</script>"])


@cache
def _packed(script: str) -> str:
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def open_report(runs: Sequence[Run], out: str | Path | None = None, *, images: int = 0) -> Path:
    """Write the page of :func:`write_report`, and open it in the browser.

    Args:
        runs: one run or several.
        out: file to write; default: one in the system's temporary folder, which the next call
            writes again.
        images: number of photos a class; see :func:`write_report`.
    """
    if out is None:
        out = Path(gettempdir()) / f"ltml-{getuser()}" / "report.html"
    path = write_report(runs, out, images=images)
    webbrowser.open(path.absolute().as_uri())
    return path


def explorer(
    *parts: str,
    runs: Mapping[str, Run] | None = None,
    labels: Mapping[str, LabelMatrix | tuple[LabelMatrix, Mapping]] | None = None,
    leave_out: Sequence[str] = (),
) -> str:
    """Return parts of the report's page as HTML of their own, which answer without a kernel.

    The page around them loads Plotly and ``page/figures.js``.

    Args:
        parts: ids of the sections.
        runs: name -> run.
        labels: name -> training labels, or labels and groups of their classes, for the section
            ``sampling``.
        leave_out: keys of controls that are not shown.
    """
    page, runs = (_PAGE / "page.html").read_text(encoding="utf-8"), runs or {}
    body = "".join(
        re.search(rf'<section id="{part}">.*?</section>', page, re.S)[0] for part in parts
    )
    body = re.sub(r' id="\w+"|<h2>.*?</h2>|<details>.*?</details>', "", body)
    if runs:
        body = re.search(r'<form id="choice".*?</form>', page, re.S)[0] + body
    for key in (*leave_out, *(() if len(runs) > 1 else ["b"])):
        body = re.sub(rf'<label>[^\n]*data-key="{key}".*?</label>\n?', "", body, flags=re.S)
    body = re.sub(r'<button.*?id="theme".*?</button>\n| id="choice"', "", body)
    names = f"names-{next(_IDS)}"
    body = body.replace('list="names"', f'list="{names}"').replace('id="names"', f'id="{names}"')
    if 'data-view="imbalance"' in body and not _trained(runs):
        raise InputError("no run holds a record of its gradients")
    return _alone(body, _figures(runs, labels or {}, set(re.findall(r'data-view="(\w+)"', body))))


@dataclass
class Choice:
    """A choice of :func:`settings`.

    Args:
        key: name in the page.
        label: name of the control there.
        values: values to choose from, as text.
        first: index of what is chosen at first.
        slider: whether it is a slider; else a list.
        needs: key and index of another choice, without which this one changes nothing.
    """

    key: str
    label: str
    values: Sequence[str]
    first: int = 0
    slider: bool = False
    needs: tuple[str, int] | None = None

    def control(self) -> str:
        """Return it as HTML."""
        key, last = f'data-key="{self.key}"', len(self.values) - 1
        if self.slider:
            control = f'<input type="range" {key} min="0" max="{last}" value="{self.first}">'
            return f"<label>{escape(self.label)} {control}<output></output></label>"
        options = "".join(
            f'<option value="{i}"{" selected" if i == self.first else ""}>{escape(value)}</option>'
            for i, value in enumerate(self.values)
        )
        return f"<label>{escape(self.label)} <select {key}>{options}</select></label>"


def settings(
    choices: Sequence[Choice],
    index: Sequence[int],
    classes: pd.DataFrame,
    found: Sequence[Mapping],
    *,
    views: Sequence[str],
    said: str,
    against: int | None = None,
) -> str:
    """Return results computed ahead as HTML, in which each setting can be chosen without a kernel.

    Args:
        choices: controls; one value of each makes a setting.
        index: place in ``found`` of each setting, the last choice moving fastest.
        classes: class, group and count of each class.
        found: a title each, and a value for each class: ``ap``, and ``pos`` and ``neg`` (gradients)
            if they were recorded.
        views: figures of the report's page.
        said: a sentence above them.
        against: place of the result to stay in view; default: the setting chosen before.
    """
    body = f'<p class="note">{escape(said)}</p><div class="controls ahead">'
    body += "".join(choice.control() for choice in choices) + "</div>"
    body += "".join(f'<div class="plot" data-view="{view}"></div>' for view in views)
    body += "" if against is not None else '<div class="table" data-table="recent"></div>'
    group, runs = classes.group.to_numpy(), []
    for each in found:
        ap, nothing = np.asarray(each["ap"], float), np.full(len(classes), np.nan)
        means = {name: ap[group == name] for name in GROUPS} | {"mAP": ap}
        means = {n: float(np.nanmean(v)) for n, v in means.items() if np.isfinite(v).any()}
        shown = ", ".join(f"{n} {100 * means[n]:.1f}" for n in ("mAP", "tail") if n in means)
        floats = {key: _floats(each.get(key, nothing)) for key in ("pos", "neg")}
        run = {"title": each["title"], "table": 0, "steps": [1], "said": [""], "trained": True}
        runs.append(run | floats | {"ap": _floats(ap), "means": means})
        runs[-1]["said"] = [f"{each['title']}: {shown}."] if "pos" in each else []
    grid = [{"key": c.key, "values": list(c.values), "needs": c.needs} for c in choices]
    data = _figures({}, {}, set(views)) | {"runs": runs, "tables": [_classes(classes)]}
    return _alone(body, data | {"grid": grid, "index": list(index), "against": against})


def _alone(body: str, data: dict) -> str:
    data = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    script = f'<script type="application/json">{data}</script>'
    return f'<div class="ltml-explorer explorer">{body}{script}</div>'


def _trained(named: Mapping[str, Run]) -> dict[str, Run]:
    recorded = {n: run for n, run in named.items() if run.per_class.grad_pos.notna().any()}
    return {n: run for n, run in recorded.items() if run.summary.get("steps")}


def _figures(named: dict[str, Run], labels: Mapping[str, LabelMatrix], views: set) -> dict:
    """Return what the script needs for some of the page's figures."""
    tables: dict[tuple, dict] = {}  # of classes, once for all runs that share one
    results, optional, trained = {}, {}, _trained(named)
    if "groups" in views:
        results["groups"] = frames.group_map(named)
    if "ablation" in views:
        ablation = next(iter(named.values())).path.parent / "ablation.csv"
        if ablation.is_file():
            results["ablation"] = frames.ablation(pd.read_csv(ablation))
    if "stages" in views and not (stages := frames.stages(named)).empty:
        results["stages"] = stages
    if "sampling" in views:
        optional["sampling"] = {name: _sampling(each) for name, each in labels.items()}
    if "diversity" in views:
        optional["diversity"] = _diversity(named)
    if "interference" in views:
        optional["interference"] = _interference(named)
    drawn = {name: _plain(live.group_map(frame)) for name, frame in results.items()}
    said = {name: captions.group_map(frame) for name, frame in results.items()}
    if trained and "imbalance" in views:
        imbalance = frames.gradient_imbalance(trained)
        drawn["imbalance"] = _plain(live.gradient_imbalance(imbalance))
        said["imbalance"] = captions.gradient_imbalance(imbalance)
    empty = {name: figure for name, figure in _empty_figures().items() if name in views}
    overview = table_of(list(named.values())).assign(run=list(named)) if named else pd.DataFrame()
    return optional | {
        "runs": [_run(run, name, tables) for name, run in named.items()],
        "tables": list(tables.values()),
        "figures": empty | drawn,
        "said": said,
        "overview": _table(overview),
        "config": live.CONFIG,
    }


def _content(named: dict[str, Run], labels: Mapping[str, LabelMatrix], images: int) -> dict:
    """Return everything that the page's script shows."""
    page = (_PAGE / "page.html").read_text(encoding="utf-8")
    found = _figures(named, labels, set(re.findall(r'data-view="(\w+)"', page)))
    left_out = [name for name in ("sampling", "diversity", "interference") if not found[name]]
    photos = mistakes_of(named, images)
    if images and not photos:
        raise InputError(
            "no run keeps scores of its images, so none can be shown; train again, or make them "
            f"with: ltml evaluate {next(iter(named.values())).path}"
        )
    if not _trained(named):
        left_out += ["gradients", "balancing"]
    left_out += [name for name in ("ablation", "stages") if name not in found["figures"]]
    return found | {"photos": photos, "facts": _table(_facts(named)), "left_out": left_out}


def _run(run: Run, name: str, tables: dict) -> dict:
    """Return one run's numbers; gradients and APs as float32 (epochs, classes)."""
    table = _classes(run.classes)
    key = tuple(map(tuple, table.values()))
    tables.setdefault(key, table)
    grid = run.per_class.pivot(index="epoch", columns="class")
    arrays = {"pos": "grad_pos", "neg": "grad_neg", "ap": "ap"}
    entry = {
        "title": name,
        "trained": bool(run.summary.get("steps")),
        "means": {group: run.summary.get(group) for group in ("mAP", *GROUPS)},
        "test_images": run.config["data"]["test_images"],
        "table": list(tables).index(key),
        "steps": run.metrics.step.tolist(),
        **{short: _floats(grid[column][table["names"]]) for short, column in arrays.items()},
        "curves": {group: _list(100 * run.metrics[group]) for group in ("mAP", *GROUPS)},
        "balanced": str(run.recipe.get("loss")).startswith("dgb"),
        "said": [],  # of the whole run, and of each epoch
    }
    if run.per_class.grad_pos.notna().any():
        ends, history = [0, *run.metrics.step], frames.gradient_history({name: run})
        entry["said"] = [captions.gradients(frames.gradients({name: run}), "over the whole run")]
        for i, (_, epoch) in enumerate(history.groupby("epoch")):
            said = captions.gradients(epoch, f"in steps {ends[i] + 1} to {ends[i + 1]}")
            entry["said"].append(said)
    return entry


def _classes(table: pd.DataFrame) -> dict[str, list]:
    names = {"names": "class", "group": "group", "count": "count"}
    return {name: table[column].tolist() for name, column in names.items()}


@cache
def _empty_figures() -> dict:
    """Return the figures whose numbers the script fills in, for one run and for two."""
    classes = {"class": list(GROUPS), "group": list(GROUPS), "count": [3, 2, 1]}
    numbers = dict.fromkeys(("ap", "positive", "negative", "total", "of_peak", "step"), 1.0)
    numbers |= dict.fromkeys(("share", "equal_share", "weight", "before", "after", "rate"), 1.0)
    table = pd.DataFrame(classes | numbers | {"steps": 1, "mAP": 0.0, "split": "test"})
    pairs = table[["class"]].merge(table[["class"]].set_axis(["other"], axis=1), how="cross")

    def by(column, *values, frame=table):
        return pd.concat(frame.assign(**{column: value}) for value in values)

    drawn = {
        "gradients": (live.gradient_magnitudes, table),
        "history": (lambda frame: live.class_history(frame, "tail"), table),
        "shares": (live.gradient_heatmap, table),
        "ap": (live.class_ap, table),
        "curves": (live.training_curves, by("group", "mAP", *GROUPS)),
        "interference": (live.interference, pairs.assign(norm=1.0, cosine=0.0)),
    }
    runs = (["first"], ["first", "second"])
    figures = {
        name: [_plain(plot(by("run", *each, frame=frame))) for each in runs]
        for name, (plot, frame) in drawn.items()
    }
    sides, spans = by("side", "positive", "negative"), {"weight": (0.1, 1), "share": (0.1, 1)}
    figures["balancing"] = _plain(live.balancing(sides, spans=spans))
    figures["sampling"] = _plain(live.class_rates(by("sampler", "uniform", "chosen")))
    return figures


def _sampling(labels: LabelMatrix | tuple[LabelMatrix, Mapping]) -> dict:
    """Class rates of each sampler, for a grid of ridges; the uniform share is mixed in the page."""
    labels, groups = labels if isinstance(labels, tuple) else (labels, None)
    groups = {g: c for g, c in (groups or labels.groups()).items() if len(c)}
    from ltml.core.sampler import ClassAwareSampler, GroupSampler  # with torch, which takes seconds

    def rates(sampler) -> dict:
        whole, own = (frames.class_rates(sampler, draws=draws).rate for draws in ("all", "own"))
        square = float((sampler.image_probabilities() ** 2).sum())
        return {"rates": _list(whole), "own": _list(own), "square": square}

    aware, ridges = ClassAwareSampler(labels, groups=groups, batch_size=64), []
    for ridge in _RIDGES:
        sampler = GroupSampler(labels, batch_size=64, groups=groups, ridge=ridge)
        ridges.append(rates(sampler) | {"ridge": ridge})
    classes = _classes(frames.class_rates(aware))
    return classes | {"images": len(labels), "class-aware": rates(aware), "ridges": ridges}


def _diversity(named: dict[str, Run]) -> dict:
    """Return a figure for each measure and split, of the runs whose features are recorded."""
    kept = {name: run for name, run in named.items() if (run.path / "features.npz").is_file()}
    if not kept:
        return {}
    shown = set(next(iter(kept.values())).classes["class"])  # one data set's: they share an axis
    kept = {name: run for name, run in kept.items() if set(run.classes["class"]) == shown}
    from ltml.core.metrics import DIVERSITY
    from ltml.runs.features import FeatureRecord

    records = {name: FeatureRecord.load(run) for name, run in kept.items()}
    found = {}
    for measure in DIVERSITY:
        for split in ("test", "train"):
            frame = frames.diversity(records, measure=measure, split=split)
            found[f"{measure} {split}"] = {
                "figure": _plain(live.feature_diversity(frame)),
                "said": captions.diversity(frame),
                "classes": _classes(frame.drop_duplicates("class")),
            }
    return found


def _interference(named: dict[str, Run]) -> dict:
    """Return cosines between classes, of the last epoch, of the runs that recorded them."""
    found = {}
    for name, run in named.items():
        if (run.path / "interference.npz").is_file():
            frame = frames.interference({name: run})
            classes = frame.drop_duplicates("class")
            numbers = {"cosine": _floats(frame.cosine), "norm": _list(classes.norm)}
            found[name] = _classes(classes) | numbers | {"said": captions.interference(frame)}
    return found


def _facts(named: dict[str, Run]) -> pd.DataFrame:
    """Tabulate what must be known before results are compared: a column per result, with mean and
    sample deviation over the runs that differ by their seed alone."""
    results, columns = {}, {}
    for name, run in named.items():
        results.setdefault(run.setting, {})[name] = run
    for seeds in results.values():
        run, scores = next(iter(seeds.values())), frames.group_map(seeds, pool=True)
        data, summary, facts = run.config["data"], run.summary, {}
        for row in scores.itertuples():
            spread = f" ± {row.deviation:.1f}" if row.seeds > 1 else ""
            facts[row.group] = f"{row.mean:.1f}{spread}"
        facts |= {
            "seeds": [each.recipe.get("seed", "?") for each in seeds.values()],
            "training images": f"{data['train_images']:,}",
            "test images": f"{data['test_images']:,}",
            "classes": f"{len(data['class_names']):,}",
            "left out, without a test positive": summary.get("classes_without_positives"),
            "scored by chance, without a training image": run.scored_by_chance,
            **{name: value for name, value in run.recipe.items() if name != "seed"},
            "steps taken": summary.get("steps"),
            "software": f"torch {summary.get('torch', '?')} on {summary.get('device', '?')}",
        }
        columns[", ".join(seeds)] = {name: _words(value) for name, value in facts.items()}
    table = pd.DataFrame(columns).fillna("–")
    return table[(table != "–").any(axis=1)].rename_axis("").reset_index()


def _words(value) -> str:
    if isinstance(value, dict):
        value = [f"{name}={each}" for name, each in value.items()]
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return "–" if value in (None, "") else str(value)


def _plain(figure: go.Figure) -> dict:
    return json.loads(figure.to_json())


def _table(table: pd.DataFrame) -> dict:
    columns = [[str(name).replace("_", " "), _DIGITS.get(name)] for name in table]
    rows = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return {"columns": columns, "rows": rows}


def _list(values: pd.Series) -> list:
    """Five digits; JSON has no NaN."""
    return [None if np.isnan(value) else float(f"{value:.5g}") for value in values]


def _floats(values) -> str:
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode("ascii")
