"""The command line: ``ltml demo | train | compare | explore | report | ablate | audit | data``."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from json import dumps
from pathlib import Path

import tyro

from ltml import data_cli
from ltml.errors import InputError
from ltml.presets import preset
from ltml.recipe import Recipe
from ltml.runs import Run, read_config, table_of, write_csv

# What trains or draws is imported by the command that does: torch alone takes seconds.

__all__ = ["main"]

Flat = tyro.conf.OmitArgPrefixes
Positional = tyro.conf.Positional


def demo(out: Path = Path("runs/demo"), seed: int = 0, steps: int | None = None) -> None:
    """Train on the embedded pictograms: the baseline, the usual remedy and the method; compare.

    Args:
        out: folder for the runs and the figures; earlier runs of the demo there are replaced.
        seed: seed of the trainings.
        steps: training steps of each; default: 7 epochs.
    """
    from ltml import fit, record_features
    from ltml.build import load_data

    recipes = {
        "baseline": Recipe.baseline(steps=steps, seed=seed),
        "class-aware": Recipe.baseline(sampler="class-aware", steps=steps, seed=seed),
        "method": Recipe.method(steps=steps, seed=seed),
    }
    data, runs = load_data(recipes["baseline"]), []
    for name, recipe in recipes.items():
        runs.append(fit(recipe, out=out / name, data=data, overwrite=True))
        record_features(runs[-1], data=data)
    figures = draw(runs, out / "figures")
    print(table_of(runs).to_string(index=False, na_rep="-"))
    tails = [f"{100 * run.summary['tail']:.0f}" for run in runs]
    spans = [f"{run.summary['gradient_imbalance']:.1f}" for run in runs]
    print(
        f"\nThe tail's mAP: {tails[0]} with uniform draws and BCE, {tails[1]} with class-aware "
        f"draws, {tails[2]} with the method."
        f"\nLargest over smallest gradient of a class: {spans[0]}, {spans[1]}, {spans[2]}."
        f"\n\nFigures: {figures}"
        "\nNext:    make lab              step through the notebooks, from 00_start_here"
        f"\n         ltml explore {out}   drag and compare in the browser, without code"
        "\n         ltml train --help     train on your own data"
    )


def train(
    settings: Flat[Recipe],
    recipe: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Train one model and write its run.

    Args:
        settings: what to train and how.
        recipe: name of a recipe to start from, such as voc-lt-resnet50; other options change it.
        out: folder to write; default: a new one under runs/.
        resume: go on with the interrupted training in this folder, by the recipe it began with.
        overwrite: replace the run that the folder holds.
        quiet: no progress bars.
    """
    from ltml import record_features, training
    from ltml.build import check_recipe, load_data
    from ltml.ranks import Ranks

    if resume is not None:
        if settings != Recipe() or out is not None or overwrite:
            raise InputError("resume takes recipe and folder from the run; give nothing else")
        settings = Recipe.from_dict(read_config(resume)["recipe"])
    check_recipe(settings)
    data = load_data(settings)
    if resume is None:
        run = training.fit(settings, out=out, data=data, overwrite=overwrite, progress=not quiet)
    else:
        run = training.resume(resume, data=data, progress=not quiet)
    if not Ranks.launched().first:
        return
    record_features(run, data=data)
    draw([run], run.path / "figures")
    classes = run.classes.assign(ap=100 * run.classes.ap)
    print(
        classes.to_string(
            index=False,
            na_rep="-",
            formatters={"ap": "{:.1f}".format, "count": "{:,}".format},
            float_format="%.3g",
        )
    )
    absent = run.summary["classes_without_positives"]
    if absent:
        print(f"\nleft out, without a positive in the test split: {', '.join(absent)}")
    if run.scored_by_chance:
        unseen = ", ".join(run.scored_by_chance)
        print(f"\nscored by chance, without a training image, but in the means: {unseen}")
    print("", table_of([run]).to_string(index=False, na_rep="-"), f"\nrun: {run.path}", sep="\n")


def compare(
    runs: Positional[tuple[Path, ...]],
    csv: Path | None = None,
    figure: Path | None = None,
) -> None:
    """Print a table of runs, one row each.

    Args:
        runs: folders of runs.
        csv: also write the table to this file.
        figure: also draw the groups' mAP to this file's .svg and .png.
    """
    if not runs:
        raise InputError("no run was given; give folders of runs, such as runs/demo/*")
    # A shell's runs/demo/* also matches folders of figures beside the runs.
    folders = [path for path in runs if not path.is_dir() or path.name != "figures"]
    loaded = [Run.load(path) for path in folders]
    rows = table_of(loaded)
    print(rows.to_string(index=False, na_rep="-"))
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        write_csv(csv, rows)
    if figure is not None:
        from ltml import plots

        plots.save(plots.group_bars(loaded)[0], figure.with_suffix(""))


def explore(
    runs: Positional[tuple[Path, ...]] = (Path("runs"),),
    ip: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
    browser: bool = True,
) -> None:
    """Look at runs in the browser: drag, choose and compare, without code.

    Args:
        runs: folders of runs, or folders that hold them.
        ip: address to listen on; the default is reached from this machine only.
        port: port to listen on; default: 8866, or a free one.
        token: let in only who has the address that is printed.
        browser: open a browser.
    """
    from ltml.serve import serve

    serve(runs, ip=ip, port=port, token=token, open_browser=browser)


def report(runs: Positional[tuple[Path, ...]], out: Path = Path("report.html")) -> None:
    """Write one page of the runs' figures and tables, which needs nothing beside it.

    Args:
        runs: folders of runs.
        out: file to write.
    """
    from ltml.report import write_report

    folders = [path for path in runs if not path.is_dir() or path.name != "figures"]
    print(f"report: {write_report([Run.load(path) for path in folders], out)}")


def card(runs: Positional[tuple[Path, ...]]) -> None:
    """Print a results card of a run, or of several seeds of one recipe: all that decides a score.

    Args:
        runs: folders of runs.
    """
    from ltml.card import results_card

    print(results_card([Run.load(path) for path in runs]))


def ablate(
    settings: Flat[Recipe],
    recipe: str | None = None,
    out: Path = Path("runs/ablation"),
    seeds: int = 3,
    only: tuple[str, ...] = ("*",),
    fast: bool = False,
    jobs: int = 1,
    cluster: str | None = None,
) -> None:
    """Train a grid of samplers, losses and heads; a finished cell is never trained again.

    Args:
        settings: everything else of the trainings.
        recipe: name of a recipe to start from, such as voc-lt-resnet50; other options change it.
        out: folder of the runs, of ablation.csv and of its figure.
        seeds: how many, from 0.
        only: patterns of sampler/loss/diversity, such as 'class-aware/*/off'.
        fast: one seed and 200 steps of seven telling cells, unless other numbers are given.
        jobs: trainings at a time; with 2 cores, 2 jobs are faster than one.
        cluster: address of a Dask scheduler, whose workers train instead and see the same folder.
    """
    from ltml import ablation, plots

    if fast:
        only = ablation.FAST if only == ("*",) else only
        seeds = 1 if seeds == 3 else seeds
        if settings.steps is None and settings.epochs is None:
            settings = replace(settings, steps=200, warmup=20)
    grid = ablation.cells(seeds=seeds, only=only)
    rows = ablation.ablate(settings, grid, out, jobs=jobs, cluster=cluster)
    print(ablation.summarise(rows).round(2).to_string(index=False))
    plots.save(plots.ablation(rows)[0], out / "ablation")
    print(f"\ntable: {out / 'ablation.csv'}\nfigure: {out / 'ablation.svg'}")


def audit(
    recipe: Flat[Recipe],
    labels: Path | None = None,
    draws: int = 0,
    json: bool = False,
) -> None:
    """Tell what a sampler draws: class rates, balance, repeated images, classes dragged along.

    Args:
        recipe: names the data and the sampler.
        labels: a CSV file with the columns image and labels, instead of a data set.
        draws: also make this many draws and count what they hold.
        json: print JSON.
    """
    from ltml.build import build_sampler, check_recipe, load_data
    from ltml.data.folder import read_label_csv

    check_recipe(recipe)
    matrix = load_data(recipe).train.labels if labels is None else read_label_csv(labels)[1]
    found = build_sampler(recipe, matrix, num_batches=1).audit(draws)
    if json:
        print(dumps(found.as_dict(), indent=2))
        return
    table = found.table().sort_values("count", ascending=False)
    print(table.to_string(float_format="{:.4f}".format), found, sep="\n\n")


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


def draw(runs: list[Run], out: Path) -> Path:
    """Write the figures of the runs into a folder, which is returned."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from ltml import plots

    plots.save(plots.label_counts(runs[0])[0], out / "label_counts")
    for run in runs:
        suffix = f"_{run.name}" if len(runs) > 1 else ""
        plots.save(plots.gradient_magnitudes(run)[0], out / f"gradient_magnitudes{suffix}")
        plots.save(plots.gradient_heatmap(run)[0], out / f"gradient_heatmap{suffix}")
    plots.save(plots.class_ap(runs)[0], out / "class_ap")
    plots.save(plots.group_bars(runs)[0], out / "group_map")
    plt.close("all")
    return out


def _named_recipe(args: Sequence[str]) -> Recipe | None:
    """Find --recipe NAME before the options are parsed, since it decides their defaults."""
    for option, value in zip(args, [*args[1:], ""], strict=True):
        if option == "--recipe" or option.startswith("--recipe="):
            return preset(option.partition("=")[2] or value)
    return None


def main(args: list[str] | None = None) -> int:
    """Run a command; mistakes of the user print one line and return 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("ltml").setLevel(logging.INFO)
    args = sys.argv[1:] if args is None else args
    try:
        start = _named_recipe(args)
    except InputError as error:
        print(f"ltml: error: {error}", file=sys.stderr)
        return 2
    app = tyro.extras.SubcommandApp()
    for command in (demo, train, compare, explore, report, card, ablate, audit):
        if start is not None and command in (train, ablate):
            app.command(partial(command, settings=start), name=command.__name__)
        else:
            app.command(command)
    data_app = tyro.extras.SubcommandApp()
    for command in (export, data_cli.voc_lt, data_cli.coco_lt, data_cli.check):
        data_app.command(command)
    app.command(data_app, name="data", help="Write, fetch and check data sets.")
    try:
        app.cli(prog="ltml", args=args, description=__doc__)
    except InputError as error:
        print(f"ltml: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ltml: stopped; a training goes on with ltml train --resume RUN", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
