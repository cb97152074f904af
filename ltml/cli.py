"""Long-tailed multi-label image recognition: train, predict, compare and explore."""

import json
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import signature
from pathlib import Path

import pandas as pd
import tyro

from ltml import __version__
from ltml.core.errors import InputError
from ltml.core.files import check_replaceable, make_parent, write_csv
from ltml.data.plan import ReadingOptions
from ltml.runs.recipe import Recipe, from_fit, preset
from ltml.runs.run import Run, find_runs, read_config, table_of

# What trains or plots is imported by the command that does: torch alone takes seconds.


Flat = tyro.conf.OmitArgPrefixes
Positional = tyro.conf.Positional


@dataclass(frozen=True, kw_only=True)
class TableOptions(ReadingOptions):
    """How the tables of a folder are read; what is not given is found, and said."""

    test_fraction: float | None = None
    """Fraction of the images to hold out to test on; default: 0.2 where no test split is named."""
    join: tuple[str, ...] = ()
    """More tables, whose columns are added by the columns that they have in common."""


def demo(out: Path = Path("runs/demo"), seed: int = 0, steps: int | None = None) -> None:
    """Train on the embedded pictograms: the baseline, and what the method adds to it; compare.

    Args:
        out: folder for the runs and the figures; earlier runs of the demo there are replaced.
        seed: seed of the trainings.
        steps: training steps of each; default: 7 epochs.
    """
    from ltml import fit, record_features
    from ltml.plots.style import check_figure
    from ltml.training.setup import load_data

    ours = (out / "baseline" / "config.json").is_file()  # where an earlier demo wrote
    for name in ("label_counts", "gradient_magnitudes", "gradient_heatmap", "class_ap"):
        check_figure(out / "figures" / name, overwrite=ours)
    options = {"steps": steps, "seed": seed, "evaluate_every": 2}
    recipes = {
        "baseline": Recipe.baseline(**options),
        "class-aware": Recipe.baseline(sampler="class-aware", **options),
        "class-aware-dem": Recipe.baseline(sampler="class-aware", diversity="dem", **options),
        "method": Recipe.method(**options),
    }
    data, runs = load_data(recipes["baseline"]), []
    for name, recipe in recipes.items():
        runs.append(fit(recipe, out=out / name, data=data, overwrite=True))
        record_features(runs[-1], data=data)
    figures = draw(runs, out / "figures", overwrite=ours)
    print(table_of(runs).to_string(index=False, na_rep="-"))
    tails = [100 * run.summary["tail"] for run in runs]
    spans = [f"{run.summary['gradient_imbalance']:.1f}" for run in runs]
    print(
        f"\nmAP of the tail: {tails[0]:.0f} with uniform sampling and BCE; class-aware sampling "
        f"{_gain(*tails[:2])}; class attention and fusion (DEM) {_gain(*tails[1:3])}; group "
        f"sampling and gradient balancing, which complete the method, {_gain(*tails[2:])}, as one "
        "seed has it."
        f"\nLargest over smallest gradient of a class: {', '.join(spans)}."
        f"\n\nFigures: {figures}"
        f"\nNext:    {_program()} explore {out}   hover, drag and compare in the browser"
        "\n         make lab   step through the notebooks, from 00_start_here"
        f"\n         {_program()} train --help   train on your own data"
    )


def _gain(before: float, after: float) -> str:
    return f"{'adds' if after >= before else 'takes'} {abs(after - before):.0f}"


def _program() -> str:
    """How to call this program again, from the present folder."""
    path = Path(sys.executable).with_name("ltml")
    if shutil.which("ltml") == str(path):
        return "ltml"
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def train(
    settings: Flat[Recipe],
    recipe: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    overwrite: bool = False,
    log: str | None = None,
    tables: Flat[TableOptions] = TableOptions(),
    quiet: bool = False,
) -> None:
    """Train one model and write its run.

    Args:
        settings: recipe of the training.
        recipe: name of a recipe to start from, such as voc-lt-resnet50; other options change it.
        out: folder to write; default: a new one under runs/.
        resume: go on with the interrupted training in this folder, by the recipe it began with.
        overwrite: replace the run that the folder holds.
        log: name of a log that each epoch is written to as well: tensorboard, wandb or mlflow.
        tables: options of reading tables, of --data folder.
        quiet: no progress bars.
    """
    from ltml import fit, record_features
    from ltml import resume as go_on
    from ltml.core.ranks import Ranks
    from ltml.training.setup import load_data

    if resume is not None:
        if settings != Recipe() or out is not None or overwrite:
            raise InputError("resume takes recipe and folder from the run; give nothing else")
        config = read_config(resume)
        if not from_fit(config):
            raise InputError(f"run {str(resume)!r} is of a loop of your own; run that loop again")
        settings = Recipe.from_dict(config["recipe"])
        if (resume / "summary.json").is_file():
            print(f"{resume} has finished already; nothing was trained")
    if said := tables.as_dict():
        settings = replace(settings, data_options={**settings.data_options, **said})
    settings = _found(settings)
    settings.check()
    data = load_data(settings)
    if resume is None:
        run = fit(settings, out=out, data=data, overwrite=overwrite, progress=not quiet, log=log)
    else:
        run = go_on(resume, data=data, progress=not quiet)
    if not Ranks.launched().is_main:
        return
    record_features(run, data=data)
    draw([run], run.path / "figures")
    _show(run)


def _found(settings: Recipe) -> Recipe:
    """Find the layout of a root that was given without the name of a data set."""
    drawn = settings.data == Recipe().data  # which needs no root
    return replace(settings, data="auto") if drawn and settings.root is not None else settings


def _show(run: Run) -> None:
    """Print a run's classes, and its row of a table of runs."""
    parts = [name for name in ("ap", "auroc") if name in run.classes]
    classes = run.classes.assign(**{name: 100 * run.classes[name] for name in parts})
    if not run.summary["steps"]:  # nothing was trained
        classes = classes[[name for name in classes if not name.startswith("grad_")]]
    formats = dict.fromkeys(parts, "{:.1f}".format) | {"count": "{:,}".format}
    print(classes.to_string(index=False, na_rep="-", formatters=formats, float_format="%.3g"))
    absent = run.summary["classes_without_positives"]
    if absent:
        print(f"\nleft out, without a positive in the test split: {', '.join(absent)}")
    if run.scored_by_chance:
        unseen = ", ".join(run.scored_by_chance)
        print(f"\nscored by chance, without a training image, but in the means: {unseen}")
    print("", table_of([run]).to_string(index=False, na_rep="-"), f"\nrun: {run.path}", sep="\n")


def probe(
    root: Positional[Path],
    data: str = "auto",
    data_options: dict = {},  # noqa: B006 - never changed; tyro shows it
    backbone: str = "resnet50",
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    holdout: float = 0.0,
    test: float | None = None,
    allow_leaks: bool = False,
    diversity: str = "attention",
    precision: str = "auto",
    engine: str = "torch",
    out: Path | None = None,
    overwrite: bool = False,
    tables: Flat[TableOptions] = TableOptions(),
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Classify by the features of a pretrained network, without training: the first thing to try.

    Args:
        root: folder of the data set.
        data: name of the data set, such as voc, coco or folder; default: the layout that is found.
        data_options: options of the data set, such as missing=skip.
        backbone: a torchvision classifier, or timm/NAME.
        weights: a local file with its weights, or a name of weights to download.
        image_size: side of the square input in pixels; default: what suits images and backbone.
        train_split: split to fit on; default: the data set's own.
        val_split: split to score as well; default: none.
        test_split: split to test on; default: the data set's own.
        holdout: fraction of the training images to hold out for validation, and for thresholds; the
            same ones for every network.
        test: fraction of the images to test on, where there is no split for it; the same ones for
            every network.
        allow_leaks: go on although images are in two splits.
        diversity: head: attention, or off (average pooling).
        precision: float32, bfloat16, or auto: bfloat16 on a GPU that has it, else float32.
        engine: torch, or openvino, which is faster on CPUs.
        out: folder to write; default: a new one under runs/.
        overwrite: replace the run that the folder holds.
        tables: options of reading tables.
        device: auto (cuda, else mps, else cpu), or a torch device.
        quiet: no progress bars.
    """
    from ltml import probe as fit_probe

    options = {**data_options, **tables.as_dict()}
    options |= {} if test is None else {"test_fraction": test}
    run = fit_probe(
        root,
        out=out,
        overwrite=overwrite,
        progress=not quiet,
        data=data,
        data_options=options,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        train_split=train_split,
        val_split=val_split,
        test_split=test_split,
        holdout=holdout,
        allow_leaks=allow_leaks,
        diversity=diversity,
        precision=precision,
        engine=engine,
        device=device,
    )
    _show(run)
    print(f"next: {_program()} predict {run.path} PHOTOS, or {_program()} explore {run.path}")


def predict(
    run: Positional[Path],
    images: Positional[tuple[Path, ...]],
    csv: Path | None = None,
    top: int = 5,
    thresholds: float | None = None,
    precision: str | None = None,
    engine: str = "torch",
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Score images with a trained run: the probability of each class, and the labels that follow.

    Args:
        run: folder of the run.
        images: image files, or folders of them.
        csv: file for labels and all probabilities, a row per image, a column per class.
        top: classes to print for each image, most probable first; labels are marked by *.
        thresholds: probability from which a class is a label; default: each class's own, which the
            run chose when it ended, or 0.5.
        precision: auto, float32 or bfloat16; default: as in training.
        engine: torch, or openvino, which is faster on CPUs.
        device: auto (cuda, else mps, else cpu), or a torch device.
        quiet: no progress bar.
    """
    if not images or top < 1:
        raise InputError(f"{len(images)} images and top={top}: give at least 1 of each")
    loaded = Run.load(run)
    if csv is not None:
        names = loaded.config["data"]["class_names"]
        first, last = _column("image", "file", names), _column("labels", "predicted", names)
        check_replaceable(csv, _header([first, *names, last], len(names) + 2))
    least = loaded.threshold_of_class(thresholds)
    options = {"precision": precision, "engine": engine, "device": device}
    table = loaded.predict(images, progress=not quiet, **options)
    if csv is not None:
        labels = loaded.labels(table, thresholds)
        _write_table(csv, table.rename_axis(first).assign(**{last: labels}).reset_index())
    for name, row in table.dropna().iterrows():
        best = row.nlargest(top)
        marks = dict(zip(table, row >= least, strict=True))
        texts = (f"{'*' * marks[cls]}{cls} {100 * p:.0f} %" for cls, p in best.items())
        print(f"{name}: {', '.join(texts)}")
    if thresholds is None and loaded.thresholds is None:
        print(
            "* from 0.5, since the run has no thresholds of its own; give --thresholds, or train "
            "with --holdout",
            file=sys.stderr,
        )


def evaluate(
    run: Positional[Path],
    table: Positional[Path] = Path("test"),
    root: Path | None = None,
    thresholds: float | None = None,
    csv: Path | None = None,
    separator: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Evaluate a run on labelled images: AP, AUROC, F1 at its thresholds, calibration.

    Args:
        run: folder of the run.
        table: a table of labels; or test, val or train: a split of the run's own.
        root: folder that the table's images are relative to; default: the table's own.
        thresholds: probability from which a class is predicted; default: each class's own, which
            the run chose when it ended, or 0.5.
        csv: file for the row of each class, as fractions.
        separator: text between the labels in the table, or none for one label per image;
            default: found from the whole file.
        device: auto (cuda, else mps, else cpu), or a torch device.
        quiet: no progress bar.
    """
    from ltml import evaluate as assess
    from ltml.runs.scores import SPLITS

    if csv is not None:
        check_replaceable(csv, "class,group,count,positives,ap,auroc,threshold,")
    data = str(table) if str(table) in SPLITS else table
    options = {"device": device, "progress": not quiet}
    found = assess(run, data, root=root, thresholds=thresholds, separator=separator, **options)
    parts = ["ap", "auroc", "precision", "recall", "f1"]
    classes = found.classes.assign(**{name: 100 * found.classes[name] for name in parts})
    formats = dict.fromkeys(parts, "{:.1f}".format) | {"threshold": "{:.3f}".format}
    print(classes.to_string(index=False, na_rep="-", formatters=formats))
    groups = (100 * found.groups.drop(columns="classes")).round(1)
    groups.insert(0, "classes", found.groups.classes)
    print("", groups.reset_index().to_string(index=False, na_rep="-"), sep="\n")
    print(f"{len(found.scores):,} images; in percent, but for thresholds")
    if csv is not None:
        _write_table(csv, found.classes)


def suspects(
    root: Positional[Path],
    data: str = "folder",
    backbone: str = "resnet50",
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    train_split: str | None = None,
    csv: Path | None = None,
    page: Path | None = None,
    top: int = 10,
    shown: int = 200,
    apply: Path | None = None,
    out: Path | None = None,
    separator: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Rank the training labels that look wrong; or apply corrections to a copy of their table.

    Args:
        root: folder of the data set, of which train.csv is enough; or the table of labels itself.
        data: name of the data set: folder, voc or coco.
        backbone: a torchvision classifier, or timm/NAME.
        weights: a local file with its weights, or a name of weights to download.
        image_size: side of the square input in pixels; default: what suits images and backbone.
        train_split: split to look at; default: the data set's own.
        csv: file for image, class, given, score and suspicion of every label.
        page: file for a page of photos, to tick what is wrong.
        top: labels of each kind to print.
        shown: labels of each kind on the page.
        apply: corrected rows, as the page saves them; nothing is ranked then.
        out: corrected copy of the table to write, with --apply.
        separator: text between the labels in the table, or none for one label per image;
            default: found from the whole file.
        device: auto (cuda, else mps, else cpu), or a torch device.
        quiet: no progress bars.
    """
    from ltml.data.corrections import LabelTable, read_corrections
    from ltml.data.single import class_names_of, find_table

    table = None
    if data == "folder" and (apply is not None or page is not None):
        path = root if root.is_file() else find_table(root, train_split or "train")
        table = LabelTable(path, class_names_of(path.parent), separator=separator)
    if apply is not None:
        if table is None or out is None:
            raise InputError("--apply needs --data folder and --out, the corrected copy to write")
        corrections = read_corrections(apply, table)
        table.write(out, corrections)
        print(
            f"{len(corrections)} {'image' if len(corrections) == 1 else 'images'} corrected: {out}"
        )
        return
    from ltml import suspects as rank
    from ltml.training.suspects import GIVEN

    if csv is not None:
        check_replaceable(csv, "image,class,given,score,suspicion")
    if page is not None:
        from ltml.plots.suspects import check_page, write_suspects

        check_page(page)
    ranked = rank(
        root,
        data=data,
        train_split=train_split,
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        device=device,
        separator=separator,
        progress=not quiet,
    )
    says = {"absent": "probably missing", "present": "probably false", "unknown": "unknown, and"}
    says["unknown"] += " probably present"
    for kind in GIVEN:
        rows = ranked.table(kind, limit=max(top, 1))
        if len(rows) and top:
            print(f"{says[kind]}:", rows.drop(columns="given").to_string(index=False), "", sep="\n")
    if csv is not None:
        _write_table(csv, ranked.table())
        print(f"table: {csv}")
    if page is not None:
        copy = f"corrected{table.holder.ending if table else '.csv'}"
        command = f"{_program()} suspects {root} --apply corrections.csv --out {copy}"
        write_suspects(ranked, page, table=table, shown=shown, apply=command)
        print(f"page: {page}")


def compare(
    runs: Positional[tuple[Path, ...]],
    csv: Path | None = None,
    figure: Path | None = None,
    latex: bool = False,
) -> None:
    """Print a table of runs, one row each.

    Args:
        runs: folders of runs, or folders that hold them.
        csv: file for the table.
        figure: file for a figure of the groups' mAP (.pdf, .svg or .png by its ending; without
            one, .svg and .png).
        latex: print a table for LaTeX instead (booktabs): means and deviations over seeds, the
            best in bold.
    """
    loaded = _load(runs)
    if figure is not None:
        from ltml import plots
        from ltml.plots.style import check_figure

        check_figure(figure)
    if latex:
        from ltml.plots.table import table

        print(table(loaded).to_latex(), end="")
    rows = table_of(loaded)
    if csv is not None:
        check_replaceable(csv, _header(rows.columns))
    if not latex:
        print(rows.to_string(index=False, na_rep="-"))
    if csv is not None:
        _write_table(csv, rows)
    if figure is not None:
        written = plots.save(plots.group_bars(loaded)[0], figure)
        print(f"figure: {' '.join(map(str, written))}", file=sys.stderr)


def explore(
    runs: Positional[tuple[Path, ...]] = (Path("runs"),),
    out: Path | None = None,
    images: int = 0,
) -> None:
    """Write a page of live plots of runs, and open it in the browser.

    Args:
        runs: folders of runs, or folders that hold them.
        out: file to write; default: one in the system's temporary folder, which the next call
            writes again.
        images: photos of each class and run, of its worst mistakes; ``--images`` alone: 24;
            ``--no-images``, the default: none.
    """
    from ltml.plots.report import open_report

    loaded = _load(runs)
    print(f"drawing {_many(loaded)} ...", file=sys.stderr, flush=True)
    print(f"page: {open_report(loaded, out, images=images)}")


def report(
    runs: Positional[tuple[Path, ...]], out: Path = Path("report.html"), images: int = 0
) -> None:
    """Write one page of live plots and tables of runs, which needs nothing beside it.

    Args:
        runs: folders of runs, or folders that hold them.
        out: file to write.
        images: photos of each class and run, of its worst mistakes, as small pictures in the page;
            ``--images`` alone: 24; ``--no-images``, the default: none, for data that may not leave
            the house.
    """
    from ltml.plots.report import write_report

    loaded = _load(runs)
    print(f"drawing {_many(loaded)} ...", file=sys.stderr, flush=True)
    print(f"report: {write_report(loaded, out, images=images)}")
    print("it holds " + ("small pictures of test images" if images else "no images"))


def _many(runs: Sequence[Run]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _images(args: list[str]) -> list[str]:
    """Give --images its default number, and --no-images its meaning."""
    out = []
    for i, word in enumerate(args):
        if word == "--no-images":
            out += ["--images", "0"]
            continue
        out.append(word)
        following = args[i + 1] if i + 1 < len(args) else ""
        if word == "--images" and not following.lstrip("-").isdigit():
            out.append("24")
    return out


def _write_table(path: Path, table) -> None:
    check_replaceable(path, _header(table.columns))
    make_parent(path)
    write_csv(path, table)


def _column(name: str, other: str, names: Sequence[str]) -> str:
    """Call a column what no class is called."""
    while name in names:
        name = f"{other}_{name}"
    return name


def _header(columns: Sequence[str], first: int = 2) -> str:
    """How a table of these columns begins; a name with a comma stands in quotes."""
    return pd.DataFrame(columns=list(columns)[:first]).to_csv(index=False).strip()


def _load(paths: Sequence[Path]) -> list[Run]:
    """Load runs; say which folders hold none."""
    if not paths:
        raise InputError("no run was given; give folders of runs, such as runs/demo")
    # A shell's runs/demo/* also matches folders of figures beside the runs.
    runs, problems = find_runs([p for p in paths if p.name != "figures" or not p.is_dir()])
    if problems and not runs:
        raise InputError(problems[0])
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return runs


def ablate(
    settings: Flat[Recipe],
    recipe: str | None = None,
    out: Path = Path("runs/ablation"),
    seeds: int | None = None,
    only: tuple[str, ...] | None = None,
    rates: tuple[float, ...] = (),
    fast: bool = False,
    jobs: int = 1,
    cluster: str | None = None,
) -> None:
    """Train a grid of samplers, losses and heads; a finished cell is never trained again.

    Args:
        settings: everything else of the trainings; each part takes those options that it has.
        recipe: name of a recipe to start from, such as voc-lt-resnet50; other options change it.
        out: folder of the runs, of ablation.csv and of its figure.
        seeds: number of seeds, from 0; default: 3, or 1 with --fast.
        only: patterns of sampler/loss/diversity, such as 'class-aware/*/off'; default: all, or
            seven telling cells with --fast.
        rates: learning rates; each row of the table gets the one that is best for it on the
            validation split.
        fast: a first look, where nothing else is given: one seed, 200 steps, seven telling cells.
        jobs: trainings at a time; with 2 cores, 2 jobs are faster than one.
        cluster: address of a Dask scheduler, whose workers train instead and see the same folder.
    """
    from ltml import plots
    from ltml.plots.style import check_figure
    from ltml.training import ablation

    settings = _found(settings)
    if only is None:
        only = ablation.FAST if fast else ("*",)
    if seeds is None:
        seeds = 1 if fast else 3
    if fast and settings.steps is None and settings.epochs is None:
        warmup = 20 if settings.warmup is None else settings.warmup
        settings = replace(settings, steps=200, warmup=warmup)
    grid = ablation.cells(seeds=seeds, only=only)
    ours = (out / "ablation.csv").is_file()
    check_figure(out / "ablation", overwrite=ours)
    rows = ablation.ablate(settings, grid, out, rates=rates, jobs=jobs, cluster=cluster)
    table = ablation.summarise(rows).dropna(axis="columns", how="all").round(2)
    same = [name for name in ablation.HOW if name in table and table[name].nunique() == 1]
    print(table.drop(columns=same).to_string(index=False, na_rep="-"))
    plots.save(plots.ablation(rows)[0], out / "ablation", overwrite=ours)
    print(f"\ntable: {out / 'ablation.csv'}\nfigure: {out / 'ablation.svg'}")


def audit(
    where: Positional[Path | None] = None,
    labels: Path | None = None,
    tables: Flat[TableOptions] = TableOptions(),
    data: str | None = None,
    data_options: dict = {},  # noqa: B006 - never changed; tyro shows it
    root: Path | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
    sampler: str = "uniform",
    sampler_options: dict = {},  # noqa: B006 - never changed; tyro shows it
    draws: int = 0,
    json: bool = False,
) -> None:
    """Say what a sampler draws: class rates, balance, repeated images, classes dragged along.

    Args:
        where: folder of a data set, or a table of labels.
        labels: a table of labels, instead of a data set.
        tables: options of reading it, or the tables of a folder.
        data: name of the data set; default: the layout that the folder has, or pictograms.
        data_options: options of the data set, such as missing=skip.
        root: folder of the data set.
        train_split: split to sample from; default: the data set's own.
        test_split: its test split, which is read as well; default: the data set's own.
        sampler: uniform, class-aware, group or group-late.
        sampler_options: options of the sampler, such as ridge=0.1 uniform=0.3 (group).
        draws: number of draws that are made as well, to count what they hold.
        json: print JSON.
    """
    from ltml.core.options import build, choose
    from ltml.core.sampler import SAMPLERS
    from ltml.data.folder import read_label_csv
    from ltml.training.setup import load_data

    Recipe(sampler=sampler, sampler_options=dict(sampler_options)).check()
    if where is not None:
        if labels is not None or root is not None:
            raise InputError(f"{where} and labels or root were given; give one of them")
        labels, root = (None, where) if where.is_dir() else (where, None)
    if labels is None:
        recipe = Recipe(
            data=data or ("pictograms" if root is None else "auto"),
            data_options={**data_options, **tables.as_dict()},
            root=None if root is None else str(root),
            train_split=train_split,
            test_split=test_split,
        )
        matrix = load_data(recipe).train.labels
    else:
        matrix = read_label_csv(labels, **tables.as_dict())[1]
    part = choose("sampler", sampler, SAMPLERS)
    built = build(part, f"sampler {sampler!r}", sampler_options, labels=matrix, batch_size=64)
    found = built.audit(draws)
    if json:
        print(_dumps(found.as_dict(), indent=2))
        return
    table = found.table().sort_values("count", ascending=False)
    print(table.to_string(float_format="{:.4f}".format), found, sep="\n\n")


_dumps = json.dumps  # a parameter of audit is named json


def export(
    out: Path,
    data: str = "pictograms",
    image_size: int = 40,
    scale: float = 2.0,
    seed: int = 0,
) -> None:
    """Write the embedded data set as a COCO instances tree with PNG images.

    Args:
        out: folder to write.
        data: only pictograms are made here, so only they can be exported.
        image_size: side of the scenes in pixels.
        scale: multiplies VOC-LT's training counts.
        seed: seed of the scenes.
    """
    if data != "pictograms":
        raise InputError(f"data {data!r} lies on disk already; only pictograms can be exported")
    from ltml.data.pictograms import export_coco

    export_coco(out, image_size=image_size, scale=scale, seed=seed)
    print(
        f"written: {out}\nread it with: ltml train --data coco --root {out} --train-split train "
        "--test-split test"
    )


def check(
    root: Path,
    data: str = "auto",
    data_options: dict = {},  # noqa: B006 - never changed; tyro shows it
    tables: Flat[TableOptions] = TableOptions(),
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    decode: bool = False,
    full: bool = False,
    quiet: bool = False,
) -> None:
    """Say how a data set would be read, before anything is trained; of a benchmark, what is wrong.

    Args:
        root: folder of the data.
        data: name of the data set, or voc-lt or coco-lt, which are compared with the published
            counts; default: the layout that is found.
        data_options: options of the data set, such as missing=skip.
        tables: options of reading tables.
        train_split: split to train on; default: the data set's own.
        val_split: split to validate on; default: none.
        test_split: split to test on; default: the data set's own.
        decode: whether to decode every image of a benchmark as well, which finds damaged ones.
        full: name everything that is missing or wrong in a benchmark, not the first ten of a kind.
        quiet: no progress bars.
    """
    from ltml.data import fetch, leaks
    from ltml.data import load as load_data

    if data in fetch.BENCHMARKS:
        fetch.check(data, root, decode=decode, full=full, quiet=quiet)
        return
    splits = {"train_split": train_split, "val_split": val_split, "test_split": test_split}
    given = {name: split for name, split in splits.items() if split is not None}
    found = load_data(data, root=root, **data_options, **tables.as_dict(), **given)
    for name, split in found.splits.items():
        print(f"{name}: {split!r}")
    copies = leaks.find_copies({name: split.files for name, split in found.splits.items()})
    leaks.report(found, copies, allow=False)


def draw(runs: list[Run], out: Path, *, overwrite: bool = True) -> Path:
    """Write the figures of the runs into a folder, which is returned.

    Args:
        runs: runs to draw.
        out: folder of the figures; by default that of a run, where all is ltml's own.
        overwrite: replace figures that ltml did not write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from ltml import plots

    figures = {"label_counts": plots.label_counts(runs[0])}
    # One figure for all runs, whose axes and colours can then be compared.
    if any(run.summary["steps"] for run in runs):  # else nothing was trained
        figures["gradient_magnitudes"] = plots.gradient_magnitudes(runs)
        figures["gradient_heatmap"] = plots.gradient_heatmap(runs)
        if len(runs[0].metrics) > 1:
            figures["gradient_imbalance"] = plots.gradient_imbalance(runs)
    figures["class_ap"] = plots.class_ap(runs)
    figures["group_map"] = plots.group_bars(runs)
    for name, (figure, _) in figures.items():
        plots.save(figure, out / name, overwrite=overwrite)
    plt.close("all")
    return out


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _options(info: tyro.constructors.PrimitiveTypeInfo):
    """Read the options of a part as NAME=VALUE words, values as JSON where they are."""
    if info.type is not dict:
        return None

    def read(words: list[str]) -> dict:
        options = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise ValueError(f"{word!r} is not NAME=VALUE")
            try:
                options[name] = json.loads(value)
            except ValueError:
                options[name] = value
        return options

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda options: [f"{k}={json.dumps(v)}" for k, v in options.items()],
    )


def _given(args: Sequence[str], field: str) -> str | None:
    """What stands after an option, before the options are parsed; None: it was not given."""
    for i, arg in enumerate(args):
        option, equals, value = arg.partition("=")
        if option.replace("_", "-") == f"--{field.replace('_', '-')}":
            return value if equals else "".join(args[i + 1 : i + 2])
    return None


# field -> the one that excludes it; part -> its options
_EITHER = {"epochs": "steps", "steps": "epochs", "val_split": "holdout", "holdout": "val_split"}
_OPTIONS = {
    **{"data": "data_options", "sampler": "sampler_options"},
    **{"loss": "loss_options", "diversity": "head_options"},
}


def _defaults(recipe: Recipe, args: Sequence[str]) -> Recipe:
    """A recipe without what the command line excludes: what was given wins."""
    for field, other in _EITHER.items():
        value = getattr(recipe, other)
        if _given(args, field) is not None and _given(args, other) is None and value:
            print(f"--{field.replace('_', '-')} takes the place of the recipe's {other}={value}")
            recipe = replace(recipe, **{other: Recipe.__dataclass_fields__[other].default})
    size, given = recipe.test_size, [_given(args, f"{what}_size") for what in ("image", "test")]
    if size is not None and given[0] is not None and given[1] is None:
        print(f"--image-size takes the place of the recipe's test_size={size} too")
        recipe = replace(recipe, test_size=None)  # chosen for the recipe's own size
    for part, options in _OPTIONS.items():
        if _given(args, part) not in (None, getattr(recipe, part)):
            recipe = replace(recipe, **{options: {}})  # they are those of another part
    return recipe


def _starting_from(command, recipe: Recipe, args: Sequence[str]):
    """Let a command change a recipe: options that are given join those of the same part."""
    default = _defaults(recipe, args) if args[:1] == [command.__name__] else recipe

    @wraps(command)
    def run(settings, **others):
        joined = {o: getattr(default, o) | getattr(settings, o) for o in _OPTIONS.values()}
        return command(replace(settings, **joined), **others)

    run.__signature__ = signature(partial(command, settings=default))
    return run


def main(args: list[str] | None = None) -> int:
    """Run a command; mistakes of the user print one line and return 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("ltml").setLevel(logging.INFO)
    args = sys.argv[1:] if args is None else args
    if args == ["--version"]:
        print(f"ltml {__version__}")
        return 0
    try:
        if args[:1] in (["report"], ["explore"]):
            args = _images(args)
        name = _given(args, "recipe")
        named = None if name is None else preset(name)
        app, data_app = tyro.extras.SubcommandApp(), tyro.extras.SubcommandApp()
        for command in (train, ablate):
            default = named or (Recipe.method() if command is ablate else Recipe())
            app.command(_starting_from(command, default, args), name=command.__name__)
        for command in (demo, probe, predict, evaluate, suspects, compare, explore, report, audit):
            app.command(command)
        if args[:1] == ["data"]:
            from ltml.data import fetch

            for command in (fetch.voc_lt, fetch.coco_lt):
                data_app.command(command)
        data_app.command(check)
        data_app.command(export)
        app.command(data_app, name="data", help="Write, fetch and check data sets.")
        app.cli(prog="ltml", args=args or ["--help"], description=__doc__, registry=_REGISTRY)
    except InputError as error:
        print(f"ltml: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ltml: stopped; a training goes on with ltml train --resume RUN", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of a reader such as head, which has seen enough
        sys.stdout = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
