"""Train a classifier by a recipe, and leave a run on disk."""

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from pathlib import Path

from ltml.build import check_recipe, completed, load_data
from ltml.checkpoint import load_checkpoint
from ltml.data import LongTailData
from ltml.devices import choose_device
from ltml.errors import InputError
from ltml.faults import LOCK, claimed
from ltml.loop import Training, evaluate
from ltml.ranks import Ranks
from ltml.recipe import Recipe
from ltml.runs import Run, read_config, write_json

__all__ = ["evaluate", "fit", "resume"]


def fit(
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    data: LongTailData | None = None,
    overwrite: bool = False,
    progress: bool = True,
    on_epoch: Callable[[Run], None] | None = None,
    save_minutes: float = 5.0,
) -> Run:
    """Train, evaluate after every epoch, and write the run's folder.

    Several processes, as ``accelerate launch`` starts them, share every batch and leave one run.

    Args:
        recipe: what to train and how.
        out: folder to write; default: a new one under ``runs/``.
        data: a data set that is loaded already (``recipe.data`` then only names it).
        overwrite: replace a run that ``out`` holds.
        progress: show progress bars.
        on_epoch: called after every epoch with the run so far, whose summary is still empty.
        save_minutes: longest time between checkpoints; one is saved after every epoch anyway.

    Raises:
        InputError: if the recipe or the data cannot be used, or ``out`` holds another run, and
            nothing is written then; or if something fails on the way, and what :func:`resume`
            needs is kept.

    Example:
        >>> import tempfile, ltml
        >>> data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = fit(Recipe(steps=2, batch_size=8), data=data, out=f"{folder}/run",
        ...               progress=False)
        ...     run.metrics.step.tolist()
        [2]
    """
    check_recipe(recipe)
    ranks = Ranks.join(recipe.device)
    device = choose_device(recipe.device)
    out = ranks.told(_choose_folder(out, recipe, overwrite) if ranks.first else None)
    if data is None:
        data = load_data(recipe)
    training = Training(completed(recipe, data.train), data, ranks.device(device), ranks, progress)
    with claimed(out) if ranks.first else nullcontext():
        if ranks.first:
            for path in out.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_json(out / "config.json", training.config)
        training.run(out, on_epoch, save_minutes)
    ranks.wait()
    return Run.load(out)


def resume(
    path: str | Path,
    *,
    data: LongTailData | None = None,
    progress: bool = True,
    on_epoch: Callable[[Run], None] | None = None,
    save_minutes: float = 5.0,
) -> Run:
    """Go on with a training that was interrupted, to exactly what it would have become.

    Args:
        path: the folder that :func:`fit` was writing.
        data: the data set, if :func:`fit` was given it.
        progress: as in :func:`fit`.
        on_epoch: as in :func:`fit`.
        save_minutes: as in :func:`fit`.

    Returns:
        the finished run; at once, if it was finished.

    Raises:
        InputError: if the folder holds no run, or the data are not those it was trained on.
    """
    out = Path(path)
    config = read_config(out)
    if (out / "summary.json").is_file():
        return Run.load(out)
    recipe = Recipe.from_dict(config["recipe"])
    check_recipe(recipe)
    ranks = Ranks.join(recipe.device)
    device = choose_device(recipe.device)
    if data is None:
        data = load_data(recipe)
    training = Training(recipe, data, ranks.device(device), ranks, progress)
    if training.config["data"] != config["data"]:
        raise InputError(
            f"run {str(out)!r} was trained on other data than these ({data.name!r}); give the data "
            "it began with"
        )
    with claimed(out) if ranks.first else nullcontext():
        state = load_checkpoint(out)
        if state is not None:
            training.load_state_dict(state)
        training.run(out, on_epoch, save_minutes)
    ranks.wait()
    return Run.load(out)


def _choose_folder(out: str | Path | None, recipe: Recipe, overwrite: bool) -> Path:
    """Return the folder to write, which holds nothing yet unless it may be overwritten."""
    if out is None:
        stem = f"{recipe.data}-{recipe.sampler}-{recipe.loss}-seed{recipe.seed}"
        names = (Path("runs") / (stem + (f"-{n}" if n > 1 else "")) for n in count(1))
        return next(name for name in names if not name.exists())
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out {str(out)!r} is a file; give a folder")
    held = [path.name for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
    if held and "config.json" not in held:
        raise InputError(f"out {str(out)!r} holds other files; give a new folder")
    if held and not overwrite:
        raise InputError(
            f"out {str(out)!r} holds another run; give a new folder, resume it, or delete it"
        )
    return out
