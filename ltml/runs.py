"""What a training left on disk. Everything that is drawn is drawn from it."""

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from ltml.errors import InputError
from ltml.labels import GROUPS

__all__ = ["SCHEMA", "Run", "table_of", "write_atomically"]

SCHEMA = 1  # version of the files below; raised when a reader of the old ones would be misled
METRICS = ["epoch", "step", "train_loss", "mAP", "head", "medium", "tail"]
PER_CLASS = ["epoch", "class", "group", "count", "ap", "grad_pos", "grad_neg", "grad_weight"]


@dataclass(frozen=True)
class Run:
    """A finished training, read from its folder.

    ``config.json`` holds the recipe and the data's description, ``metrics.csv`` a row an epoch,
    ``per_class.csv`` a row an epoch and class, ``summary.json`` the result, ``model.pt`` the
    weights. APs and mAPs are shares in [0, 1].

    Args:
        path: the folder.
        config: ``{"schema": ..., "recipe": {...}, "data": {...}}``.
        metrics: columns epoch, step, train_loss, mAP, head, medium, tail.
        per_class: columns epoch, class, group, count, ap, grad_pos, grad_neg, grad_weight; epochs
            count from 1, and gradients are summed over the epoch.
        summary: mAP, head, medium, tail, gradient_imbalance, seconds, torch, device, ...
    """

    path: Path
    config: dict
    metrics: pd.DataFrame
    per_class: pd.DataFrame
    summary: dict

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read a run's folder.

        Raises:
            InputError: if it is missing, holds no finished run, or one of a later schema.
        """
        path = Path(path)
        config = read_config(path)
        return cls(
            path,
            config,
            _read_csv(path / "metrics.csv", METRICS),
            _read_csv(path / "per_class.csv", PER_CLASS),
            _read_json(path / "summary.json"),
        )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def recipe(self) -> dict:
        """The recipe's fields."""
        return self.config["recipe"]

    @property
    def classes(self) -> pd.DataFrame:
        """A row a class, by descending count: class, group, count, ap (last epoch), and the
        gradients grad_pos, grad_neg, grad_weight summed over the run."""
        table = self.per_class
        last = table[table.epoch == table.epoch.max()]
        sums = table.groupby("class", sort=False)[["grad_pos", "grad_neg", "grad_weight"]]
        out = last[["class", "group", "count", "ap"]].merge(
            sums.sum(min_count=1), left_on="class", right_index=True
        )
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The model's weights, on the CPU."""
        return torch.load(self.path / "model.pt", map_location="cpu", weights_only=True)


def table_of(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate runs, one row each: what was trained, mAPs in percent, gradient imbalance, seconds.

    What a run does not hold is NaN.
    """
    rows, columns = [], ("data", "sampler", "loss", "diversity", "seed")
    for run in runs:
        row = {"run": run.name}
        row |= {name: run.recipe.get(name) for name in columns}
        row |= {name: _percent(run.summary.get(name)) for name in ("mAP", *GROUPS)}
        row["gradient_imbalance"] = run.summary.get("gradient_imbalance")
        row["seconds"] = run.summary.get("seconds")
        rows.append(row)
    return pd.DataFrame(rows).round({"gradient_imbalance": 2, "seconds": 1})


def _percent(share: float | None) -> float:
    return float("nan") if share is None else round(100 * share, 2)


def read_config(path: Path) -> dict:
    """Read ``config.json`` of a run, finished or not.

    Raises:
        InputError: if the folder is missing, holds no run, or one of a later schema.
    """
    if not path.is_dir():
        raise InputError(f"run {str(path)!r} is not a folder; give a folder that training wrote")
    config = _read_json(path / "config.json")
    if not isinstance(config.get("schema"), int) or "recipe" not in config:
        raise InputError(f"{str(path / 'config.json')!r} was not written by ltml; give a run")
    if config["schema"] > SCHEMA:
        raise InputError(
            f"run {str(path)!r} has schema {config['schema']}, this ltml reads up to {SCHEMA}; "
            "update ltml"
        )
    return config


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, then put it in place at once.

    Raises:
        InputError: if it cannot be written; what ``path`` held before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{str(path)!r} could not be written ({error.strerror or error}); what was there "
            "before is as it was: make room, or allow writing, and go on"
        ) from error
    finally:
        with suppress(OSError):  # a disk that became read-only
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write readable JSON; numbers that JSON lacks (nan, inf) become null."""

    def plain(value):
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value

    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table with seven significant digits."""
    write_atomically(path, lambda part: table.to_csv(part, index=False, float_format="%.7g"))


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise InputError(
            f"run {str(path.parent)!r} has no {path.name}; it is not a run, or has not finished"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not JSON ({error}); train again") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object; train again")
    return content


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"run {str(path.parent)!r} has no {path.name}; it is not a whole run")
    try:
        table = pd.read_csv(
            path,
            dtype={"class": str, "group": str},
            keep_default_na=False,
            na_values={c: [""] for c in columns if c not in ("class", "group")},
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is not a CSV table ({error}); train again") from error
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise InputError(f"{str(path)!r} lacks the column {lacking[0]!r}; train again")
    return table
