"""What a training left on disk. Everything that is drawn is drawn from it."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ltml.errors import InputError
from ltml.files import check_class_names, lines_of, quote, read_json
from ltml.groups import GROUPS
from ltml.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["SCHEMA", "Run", "table_of", "write_atomically"]

SCHEMA = 1  # version of the files below; raised when a reader of the old ones would be misled
METRICS = ["epoch", "step", "train_loss", "mAP", "head", "medium", "tail"]
PER_CLASS = ["epoch", "class", "group", "count", "ap", "grad_pos", "grad_neg", "grad_weight"]
_DATA = {"name": str, "train_images": int, "test_images": int, "class_names": list}
_SHARES = ("mAP", *GROUPS)


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
            InputError: if it is missing, holds no finished run, one of a later schema, or a file
                that is cut off or holds what training never writes.
        """
        path = Path(path)
        config = read_config(path)
        metrics = _read_csv(path / "metrics.csv", METRICS)
        per_class = _read_csv(path / "per_class.csv", PER_CLASS)
        _check_epochs(path, metrics, per_class)
        summary = _read_json(path / "summary.json")
        _check_summary(path / "summary.json", summary)
        return cls(path, config, metrics, per_class, summary)

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
        return self._classes.copy()  # the caller's own

    @cached_property
    def _classes(self) -> pd.DataFrame:
        table = self.per_class
        last = table[table.epoch == table.epoch.max()]
        sums = table.groupby("class", sort=False)[["grad_pos", "grad_neg", "grad_weight"]]
        out = last[["class", "group", "count", "ap"]].merge(
            sums.sum(min_count=1), left_on="class", right_index=True
        )
        return out.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)

    @property
    def scored_by_chance(self) -> list[str]:
        """Classes that have an AP, and count in the means, but no training image."""
        table = self._classes
        return table["class"][(table["count"] == 0) & table.ap.notna()].tolist()

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """The model's weights, on the CPU."""
        import torch  # only here: tables of runs need not wait for it

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
        InputError: if the folder is missing, holds no run, one of a later schema, or a value of
            another type than training writes.
    """
    if not path.is_dir():
        raise InputError(f"run {str(path)!r} is not a folder; give a folder that training wrote")
    where = repr(str(path / "config.json"))
    config = _read_json(path / "config.json")
    recipe, data = config.get("recipe"), config.get("data", {})
    schema = config.get("schema")
    if type(schema) is not int or schema < 1 or not isinstance(recipe, dict):
        raise InputError(f"{where} was not written by ltml; give a run")
    if schema > SCHEMA:
        raise InputError(
            f"{where} has schema {quote(schema)}, this ltml reads up to {SCHEMA}; update ltml"
        )
    try:
        Recipe.from_dict(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}, or train again") from None
    for name, kind in _DATA.items():
        if not isinstance(data, dict) or type(data.get(name)) is not kind:
            raise InputError(f"{where}: data has no {name} of type {kind.__name__}; train again")
    check_class_names(data["class_names"], where=f"{where}: data")
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
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; train again") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object; train again")
    return content


def _read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"run {str(path.parent)!r} has no {path.name}; it is not a whole run")
    try:
        # Plain \n, so that line numbers are those of an editor.
        text = "\n".join(lines_of(path.read_text(encoding="utf-8")))
        _check_cells(path, text, columns)
        return pd.read_csv(
            io.StringIO(text),
            dtype={"class": str, "group": str},
            keep_default_na=False,
            na_values={c: [""] for c in columns if c not in ("class", "group")},
        )
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{str(path)!r} is not a CSV table ({error}); train again") from error


def _check_cells(path: Path, text: str, columns: list[str]) -> None:
    """Raise unless every row is whole and every number one; pandas fills and guesses instead."""
    rows = csv.reader(io.StringIO(text), strict=True)
    header = next(rows, None)
    if header is None:
        raise ValueError("it is empty")
    for column in columns:
        if header.count(column) != 1:
            raise InputError(f"{str(path)!r} lacks the column {column!r}; train again")
    if not text.endswith("\n"):
        raise InputError(f"{str(path)!r} is cut off: its last line has no end; train again")
    few = len(header) < 2 * len(columns)  # an expression of many thousand columns is slow to make
    if few and _plain_rows(tuple(header)).fullmatch(text, text.index("\n") + 1):
        return
    # Something is unusual, or wrong: read it cell by cell, to say where.
    lines, cells = [], []
    for row in filter(None, rows):
        if len(row) != len(header):
            raise InputError(
                f"{str(path)!r}, line {rows.line_num}: there are {len(row)} columns, not "
                f"{len(header)}; train again"
            )
        lines.append(rows.line_num)
        cells.append(row)
    # By columns, with no step of Python a cell where it can be helped: there may be a million.
    for column, values in zip(header, zip(*cells, strict=True), strict=bool(cells)):
        fits = _FITS.get(column, _number) if column in columns else None
        if fits is not None and not all(map(fits, values)):
            i = next(i for i, value in enumerate(values) if not fits(value))
            raise InputError(
                f"{str(path)!r}, line {lines[i]}: {column} is {quote(values[i])}; train again"
            )


def _is_share(value: float) -> bool:
    return -1e-6 <= value <= 1 + 1e-6  # a mean of float32 may round beyond 1


# As training writes them, empty for NaN; no more digits than a finite number has.
_number = re.compile(r"(-?[0-9]{1,20}(\.[0-9]{0,30})?(e\+?[0-9]{1,2}|e-[0-9]{1,3})?)?").fullmatch
_whole = re.compile("[0-9]{1,15}").fullmatch


def _share(cell: str) -> bool:
    return _number(cell) is not None and (not cell or _is_share(float(cell)))


@cache
def _plain_rows(header: tuple[str, ...]) -> re.Pattern:
    """Match rows as training usually writes them, a hundred runs a second; all of them fit."""
    whole, text, group = "[0-9]{1,15}", '[^",\\r\\n]*', "|".join(GROUPS)
    share = r"(?:0(?:\.[0-9]{1,30})?|1|[1-9](?:\.[0-9]{1,30})?e-(?!00)[0-9]{2})?"
    number = r"(?:-?[0-9]{1,20}(?:\.[0-9]{1,30})?(?:e[-+][0-9]{2})?)?"
    cells = {"class": text, "group": f"(?:{group})"}
    cells |= dict.fromkeys(("epoch", "step", "count"), whole)
    cells |= dict.fromkeys(("mAP", *GROUPS, "ap"), share)
    known = {*METRICS, *PER_CLASS}
    row = ",".join(cells.get(name, number if name in known else text) for name in header)
    return re.compile(f"(?:{row}\n)*+")


_FITS = {"class": lambda cell: True, "group": GROUPS.__contains__}  # names are checked together
_FITS |= dict.fromkeys(("epoch", "step", "count"), _whole)
_FITS |= dict.fromkeys(("mAP", *GROUPS, "ap"), _share)


def _check_epochs(path: Path, metrics: pd.DataFrame, per_class: pd.DataFrame) -> None:
    """Raise unless both tables hold the same epochs, in order, and each epoch the same classes."""
    epochs = metrics.epoch.tolist()
    if not epochs or epochs != sorted(set(epochs)) or set(epochs) != set(per_class.epoch):
        raise InputError(
            f"{str(path / 'metrics.csv')!r} and {str(path / 'per_class.csv')!r} hold different "
            "epochs, or one twice, or none; train again"
        )
    first = per_class["class"][per_class.epoch == epochs[0]]
    check_class_names(first.tolist(), where=f"{str(path / 'per_class.csv')!r}, epoch {epochs[0]}")
    row = pd.Index(epochs).get_indexer(per_class.epoch)
    column = pd.Index(first).get_indexer(per_class["class"])  # -1 where the first has no such class
    found = np.zeros((len(epochs), len(first)), dtype=int)
    np.add.at(found, (row, column), np.where(column < 0, 2, 1))
    wrong = np.flatnonzero((found != 1).any(1))
    if len(wrong):
        raise InputError(
            f"{str(path / 'per_class.csv')!r}, epoch {epochs[wrong[0]]}: its classes are not those "
            "of the first; train again"
        )


def _check_summary(path: Path, summary: dict) -> None:
    """Raise unless what is there has the type that training writes; null stands for NaN."""
    for name in ("mAP", *GROUPS, "gradient_imbalance", "seconds", "steps"):
        value = summary.get(name)
        if value is None:
            continue
        if type(value) not in (int, float) or (name in _SHARES and not _is_share(value)):
            raise InputError(f"{str(path)!r}: {name} is {quote(value)}; train again")
        if not abs(value) <= 1e300:  # NaN and infinity too, which pandas would show as numbers
            raise InputError(f"{str(path)!r}: {name} is {quote(value)}; train again")
    absent = summary.get("classes_without_positives", [])
    if not isinstance(absent, list) or not all(isinstance(name, str) for name in absent):
        raise InputError(f"{str(path)!r}: classes_without_positives is no list; train again")
