"""Train a grid of samplers, losses and heads, cell by cell, and tabulate it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from itertools import product
from pathlib import Path

import pandas as pd

from ltml.core.errors import InputError
from ltml.core.files import as_json, write_csv
from ltml.core.heads import HEADS
from ltml.core.labels import GROUPS
from ltml.core.losses import LOSSES
from ltml.core.options import defaults_of, fitted, options_of
from ltml.core.sampler import SAMPLERS
from ltml.data.loader import in_memory
from ltml.data.splits import LongTailData
from ltml.runs.recipe import Count, Recipe
from ltml.runs.run import Run, table_of
from ltml.training.bank import Bank, bank
from ltml.training.setup import completed, described, differs, held_out, load_data, steps_of
from ltml.training.train import fit

_PARTS = ["data", "sampler", "loss", "diversity"]
HOW = ["backbone", "classifier", "optimizer", "lr", "steps", "size"]
_MEASURES = ["mAP", *GROUPS, "val_mAP", "gradient_imbalance"]
COLUMNS = [*_PARTS, *HOW, "seed", *_MEASURES, "seconds"]
# What a first look needs: each module alone on the plain baseline, the usual remedy, and all.
FAST = [
    "uniform/bce/off",
    "uniform/dgb/off",
    "uniform/bce/dem",
    "group/bce/off",
    "class-aware/bce/off",
    "class-aware/asl/off",
    "group/dgb/dem",
]


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    sampler: str
    loss: str
    diversity: str
    seed: int
    lr: float | None = None  # None: the recipe's

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        rate = "" if self.lr is None else f"+lr{self.lr:g}"
        return f"{self.sampler}+{self.loss}+{self.diversity}{rate}+seed{self.seed}"


def cells(*, seeds: int = 3, only: Sequence[str] = ("*",)) -> list[Cell]:
    """List the cells of the grid, seed by seed, so that a stopped grid is a fair one.

    Args:
        seeds: number of seeds, from 0.
        only: patterns of ``sampler/loss/diversity``, such as ``"class-aware/*/off"``.

    Raises:
        InputError: if a pattern matches nothing.

    Example:
        >>> [cell.folder for cell in cells(seeds=1, only=["uniform/bce/*"])]
        ['uniform+bce+off+seed0', 'uniform+bce+attention+seed0', 'uniform+bce+dem+seed0']
    """
    if seeds < 1:
        raise InputError(f"seeds={seeds}: give at least 1")
    grid = list(product(SAMPLERS, LOSSES, HEADS))
    chosen: dict[tuple, None] = {}
    for pattern in only:
        matching = [names for names in grid if fnmatch("/".join(names), pattern)]
        if not matching:
            raise InputError(
                f"only {pattern!r} matches no cell; give sampler/loss/diversity, * for any, from "
                f"{', '.join(SAMPLERS)} / {', '.join(LOSSES)} / {', '.join(HEADS)}"
            )
        chosen |= dict.fromkeys(matching)
    return [Cell(*names, seed) for seed in range(seeds) for names in chosen]


def recipe_of(base: Recipe, cell: Cell) -> Recipe:
    """Put a cell's parts into a recipe; each part takes those of the recipe's options it has.

    Raises:
        InputError: if no part of the grid has one of the options.

    Example:
        >>> recipe_of(Recipe.method(), Cell("uniform", "bce", "off", 0)).sampler_options
        {}
    """
    options = {}
    for field, table, name in (
        ("sampler_options", SAMPLERS, cell.sampler),
        ("loss_options", LOSSES, cell.loss),
        ("head_options", HEADS, cell.diversity),
    ):
        given = getattr(base, field)
        unknown = given.keys() - {option for part in table.values() for option in options_of(part)}
        if unknown:
            raise InputError(f"{field} has {sorted(unknown)[0]!r}, which none of the grid takes")
        takes = options_of(table[name])
        options[field] = {key: value for key, value in given.items() if key in takes}
    names = {name: value for name, value in vars(cell).items() if value is not None}
    return replace(base, **names, **options)


def ablate(
    base: Recipe,
    grid: Iterable[Cell],
    out: str | Path,
    *,
    rates: Sequence[float] = (),
    jobs: int = 1,
    cluster: str | None = None,
    data: LongTailData | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train the cells that are not finished yet, and write ``out/ablation.csv``.

    AP ranks within a class, so at one learning rate a loss or a sampler may win because it is
    fast, not because it is better. With ``rates``, every sampler, loss and head has the rate of its
    own at which its trained head is best on the validation split: the cells of the first seed are
    trained at all of them, those of the other seeds at the chosen ones. ``out/rates.csv`` holds the
    search.

    With a recipe that freezes the backbone whole (``freeze=-1``), images pass it once for all
    cells, which are trained one after the other, and leave no ``model.pt``.

    Args:
        base: recipe of everything but sampler, loss, diversity and seed; see :func:`recipe_of`.
        grid: the cells; see :func:`cells`.
        out: folder to write; each cell's run is a folder in it.
        rates: learning rates to choose from; none: the recipe's.
        jobs: number of trainings at a time, each in a process of its own.
        cluster: address of a Dask scheduler, whose workers train instead; they must see ``out`` and
            the data under the same paths. joblib hands the cells over.
        data: data set that is loaded already, or a bank of it, as :func:`fit` takes them; default:
            what the recipe names.
        progress: whether to show progress bars (of one job).

    Returns:
        a row per cell, and if heads are re-fitted per classifier (own, refit, interpolated): how it
        was trained, seed, mAP, head, medium, tail, val_mAP (percent), gradient_imbalance, seconds.

    Raises:
        InputError: if a finished cell was trained by another recipe or on other data, there is no
            such cluster, rates are to be chosen without a validation split, or ``out`` holds the
            search of rates and none are given.
    """
    jobs, out, grid = fitted("jobs", jobs, Count), Path(out).absolute(), list(grid)
    data = None if data is None else held_out(base, data)
    ready = data if isinstance(data, Bank) else None  # as trained on
    if not rates and (out / "rates.csv").is_file():
        raise InputError(
            f"{str(out / 'rates.csv')!r} is the search of another ablation; give its rates, or "
            "another folder"
        )

    def train(wanted: list[Cell]) -> pd.DataFrame:
        nonlocal data, ready
        recipes = {cell: recipe_of(base, cell) for cell in wanted}
        for recipe in recipes.values():
            recipe.check()
        data = load_data(base) if data is None else data
        todo = [c for c in wanted if not _finished(out / c.folder, recipes[c], data)]
        if todo and ready is None:
            whole = completed(base, data.train)
            if base.freeze == -1:
                ready = bank(whole, data, progress=progress)
            else:
                ready = in_memory(data, whole.image_size, progress=progress)
        if base.freeze == -1 or (jobs == 1 and cluster is None):
            for cell in todo:
                _train(recipes[cell], ready, out / cell.folder, progress)
        elif todo:
            from joblib import Parallel, delayed

            with _workers(cluster):
                Parallel(n_jobs=jobs if cluster is None else -1)(
                    delayed(_train)(recipes[cell], ready, out / cell.folder, False) for cell in todo
                )
        return tabulate([Run.load(out / cell.folder) for cell in wanted])

    if not rates:
        table = train(grid)
    else:
        if base.val_split is None and not base.holdout:
            raise InputError("rates are chosen on a validation split; give val_split or holdout")
        first = min(cell.seed for cell in grid)
        searched = train([replace(c, lr=r) for c in grid if c.seed == first for r in rates])
        write_csv(out / "rates.csv", searched)
        # By the trained head: what it is re-fitted to inherits the rate of a good training.
        own = searched[searched.classifier == "own"]
        best = own.loc[own.groupby(_PARTS).val_mAP.idxmax(), [*_PARTS, "lr"]]
        rate = best.set_index(_PARTS[1:]).lr
        others = [
            replace(c, lr=rate[c.sampler, c.loss, c.diversity]) for c in grid if c.seed != first
        ]
        table = pd.concat([searched, train(others)]) if others else searched
        table = table.merge(best, on=[*_PARTS, "lr"])
    write_csv(out / "ablation.csv", table)
    return table


@contextmanager
def _workers(cluster: str | None) -> Iterator[None]:
    """Let joblib hand its jobs to a cluster's workers."""
    if cluster is None:
        yield
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise InputError(
            "cluster needs Dask, which is missing; install it with: pip install 'ltml[cluster]'"
        ) from error
    from joblib import parallel_config

    try:
        client = Client(cluster, timeout=20)
    except (OSError, ValueError) as error:
        raise InputError(
            f"cluster {cluster!r} does not answer ({error}); give the address that dask scheduler "
            "printed, such as tcp://10.0.0.1:8786"
        ) from error
    with client, parallel_config("dask"):
        yield


def tabulate(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the rows of runs, with the columns of :data:`COLUMNS`; mAPs in percent."""
    rows = []
    for run in runs:
        recipe, summary = run.recipe, run.summary
        how = {name: recipe[name] for name in (*_PARTS, "optimizer", "lr", "seed")}
        how |= {"steps": summary["steps"], "size": recipe["image_size"]}
        how["backbone"] = "frozen" if recipe.get("freeze") == -1 else "tuned"
        how |= {name: summary[name] for name in ("gradient_imbalance", "seconds")}
        for classifier, found in _results(run).items():
            rows.append(how | {"classifier": classifier} | found)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return table.astype(dict.fromkeys([*_MEASURES, "seconds"], float)).round(
        dict.fromkeys([*_MEASURES, "seconds"], 2)
    )


def _results(run: Run) -> dict[str, dict[str, float]]:
    """Percent mAPs of each classifier that a run ended with."""
    if run.stages.empty:
        shares = {name: run.summary[name] for name in ("mAP", *GROUPS)}  # None: no such class
        if "val_mAP" in run.metrics:
            shares["val_mAP"] = table_of([run]).val_mAP[0] / 100
        return {"own": {name: None if x is None else 100 * x for name, x in shares.items()}}
    found = {}
    for classifier, table in run.stages.groupby("classifier", sort=False):
        means = table.groupby("group").ap.mean().to_dict() | {"mAP": table.ap.mean()}
        if "val_ap" in table:
            means["val_mAP"] = table.val_ap.mean()
        found[classifier] = {name: 100 * x for name, x in means.items()}
    return found


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and sample deviation over seeds, by descending mAP.

    Returns:
        the columns that say how, seeds, and each measure with its ``_std``.
    """
    by = [name for name in (*_PARTS, *HOW) if name in table]
    groups = table.groupby(by, sort=False, dropna=False)
    out = groups.size().rename("seeds").to_frame()
    for name in [name for name in _MEASURES if name in table]:
        out[name], out[f"{name}_std"] = groups[name].mean(), groups[name].std()
    return out.reset_index().sort_values("mAP", ascending=False, ignore_index=True)


def markdown(table: pd.DataFrame) -> str:
    """Mean ± deviation over seeds as a Markdown table, by descending mAP.

    Args:
        table: a row per run, as :func:`ablate` returns it.
    """
    measures = [name for name in _MEASURES if name != "val_mAP"]
    head = [*_PARTS[1:], *measures]
    lines = [f"| {' | '.join(head)} |".replace("_", " "), "|---" * 3 + "|---:" * 5 + "|"]
    for _, row in summarise(table).iterrows():
        numbers = [f"{row[name]:.1f} ± {row[f'{name}_std']:.1f}" for name in measures]
        lines.append(f"| {' | '.join([row.sampler, row.loss, row.diversity, *numbers])} |")
    return "\n".join(lines)


def _finished(folder: Path, recipe: Recipe, data: LongTailData) -> bool:
    """Tell whether a cell is done, and refuse one of another recipe or of other data."""
    if not (folder / "summary.json").is_file():
        return False
    run = Run.load(folder)
    used, wanted = (
        _in_full(each, data)
        for each in (Recipe.from_dict(run.recipe), completed(recipe, data.train))
    )
    # What the data are is seen in themselves, not in what they were called, since runs keep that.
    named = ("data", "root", "data_options", "train_split", "val_split", "test_split")
    named = named if "content" in run.config["data"] else ()
    for name, value in wanted.items():
        if name not in named and used[name] != value:
            raise InputError(
                f"{str(folder)!r} was trained with {name}={used[name]!r}, not {value!r}; "
                "give another folder, or the same recipe"
            )
    now = {"class_names": list(data.class_names), "train_images": len(data.train)}
    if (why := differs(run.config["data"], now | described(data))) is not None:
        raise InputError(
            f"{str(folder)!r} was trained on other data than these ({data.name!r}: {why}); give "
            "another folder, or the same data"
        )
    return True


def _in_full(recipe: Recipe, data: LongTailData) -> dict:
    """The fields of a recipe that decide a result, in one form for all ways to say them."""
    parts = {
        "sampler_options": SAMPLERS[recipe.sampler],
        "loss_options": LOSSES[recipe.loss],
        "head_options": HEADS[recipe.diversity],
    }
    full = {name: defaults_of(part) | getattr(recipe, name) for name, part in parts.items()}
    full |= {"epochs": None, "steps": steps_of(recipe, data.train)}
    there = {k: v for k, v in vars(recipe).items() if k not in ("device", "compile", "allow_leaks")}
    return as_json("recipe", there | full)


def _train(recipe: Recipe, data: LongTailData, folder: Path, progress: bool) -> None:
    # A cell without a summary was broken off; what it left is not a result.
    fit(recipe, data=data, out=folder, overwrite=True, progress=progress)
    if recipe.freeze == -1:  # thousands of trainings of seconds, each with the same backbone
        (folder / "model.pt").unlink()
