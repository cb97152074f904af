"""Label Studio: its exports as JSON, JSON-MIN and CSV."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from ltml.core.errors import InputError
from ltml.core.files import quote, read_json, read_text
from ltml.data.layouts import Part, Reading, Tree, by_split, head_of, layout

_LIMIT = 2**30  # brush masks make exports large
_MASKS = ("rle", "points", "brush")
# Columns of the tool's own in JSON-MIN and CSV; all others are the task's data or a control.
_OWN = frozenset(
    ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
)
_IMAGE = re.compile(r"\.(jpe?g|jfif|png|bmp|gif|tiff?|webp|avif)$", re.IGNORECASE)
_UPLOADED = re.compile(r"^[0-9a-f]{4,12}-(?=.)", re.IGNORECASE)  # put before a name on upload


class _Task(NamedTuple):
    """One annotation: its image as written, and the labels of each control."""

    where: str
    image: str
    labels: dict[str, list[str]]


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it holds an export of image tasks."""
    found = _exports(tree)
    kinds = sorted(set(found.values()))
    return (
        f"a Label Studio {' and '.join(kinds)} export: {tree.list(list(found))}" if found else None
    )


def _exports(tree: Tree) -> dict[Path, str]:
    found = {}
    for path in tree.match("*.json", "*/*.json", "*.csv", "*/*.csv", "*.tsv"):
        text = head_of(path)
        if path.suffix == ".json":
            if text.lstrip()[:1] == "[" and re.search(r'"(annotation_id|annotator)"\s*:', text):
                found[path] = "JSON-MIN"
            elif text.lstrip()[:1] == "[" and all(
                re.search(rf'"{key}"\s*:', text) for key in ("annotations", "data")
            ):
                found[path] = "JSON"
        else:
            columns = {cell.strip('"') for cell in re.split("[,\t]", text.split("\n")[0].strip())}
            if {"annotation_id", "annotator", "lead_time"} <= columns:
                found[path] = "CSV"
    return found


@layout("label-studio")
def load(
    tree: Tree,
    *,
    control: str | Sequence[str] | None = None,
    merge: Literal["any", "all", "unknown"] | None = None,
) -> Reading:
    """Load an export of Label Studio: the choices, or the labels of regions, of each image.

    Further arguments are those of :func:`ltml.data.layouts.assemble`. Tasks that nobody annotated,
    or that were skipped, are left out.

    Args:
        tree: folder with the export, and the images under it by their own or their uploaded names.
        control: name of the labelling tag whose labels are read, or several, separated by commas.
            Default: the only one.
        merge: rule where several annotators' labels of an image differ: ``"any"`` takes those that
            one gave, ``"all"`` those that all gave, ``"unknown"`` leaves the others unknown.

    Raises:
        InputError: naming the file and task, if anything is missing or may be read in two ways.
    """
    found = _exports(tree)
    if not found:
        raise InputError(
            f"{tree.root} has no export of Label Studio; export it as JSON, JSON-MIN or CSV"
        )
    parts = {}
    for split, path in by_split(found, tree.root).items():
        if found[path] == "JSON":
            tasks = _read_json(path)
        else:
            tasks = _read_rows(path, found[path] == "CSV", control)
        parts[split] = _part(path, tasks, control, merge)
    return Reading(recognises(tree), parts)


def _read_json(path: Path) -> list[_Task]:
    tasks, content = [], read_json(path, limit=_LIMIT, drop=_MASKS)
    for i, task in enumerate(content):
        where = f"task {task['id']}" if isinstance(task, dict) and "id" in task else f"entry {i}"
        try:
            image = _location(task["data"][_image_key(path, [task["data"]])])
            for annotation in task["annotations"]:
                if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                    continue  # a number where annotations were not exported
                labels: dict[str, list[str]] = {}
                for result in annotation["result"]:
                    kind = result.get("type", "")
                    given = result["value"].get(kind, ()) if kind else ()
                    if "from_name" in result and (kind == "choices" or kind.endswith("labels")):
                        labels.setdefault(str(result["from_name"]), []).extend(_names(given))
                    elif kind == "taxonomy":
                        paths = [" / ".join(map(str, item)) for item in given]
                        labels.setdefault(str(result["from_name"]), []).extend(paths)
                tasks.append(_Task(where, image, labels))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: {where} is no task of Label Studio ({type(error).__name__}: {error}); "
                "export it again as JSON"
            ) from None
    return tasks


def _read_rows(path: Path, table: bool, control) -> list[_Task]:
    """Read JSON-MIN, or the CSV that holds the same."""
    if table:
        text = read_text(path, limit=_LIMIT)
        lines = csv.DictReader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ",")
        csv.field_size_limit(2**24)  # of a cell with the regions of an image
        try:
            rows = [(f"line {lines.line_num}", row) for row in lines]
        except csv.Error as error:
            raise InputError(f"{path}, line {lines.line_num} is not CSV: {error}") from None
    else:
        content = read_json(path, limit=_LIMIT, drop=_MASKS)
        rows = [(f"entry {i}", row) for i, row in enumerate(content)]
    for where, row in rows:
        if not isinstance(row, dict) or None in row or (table and None in row.values()):
            raise InputError(f"{path}, {where} is no task of Label Studio; export it again")
    if not rows:
        raise InputError(f"{path} holds no task; annotate some, and export it again")
    image = _image_key(path, [row for _, row in rows])
    names = _controls(path, [row for _, row in rows], image, control)
    tasks = []
    for where, row in rows:
        if row.get("annotation_id") in (None, "") and "annotation_id" in row:
            continue  # nobody has annotated it
        if not isinstance(row.get(image), str):
            raise InputError(f"{path}, {where} has no {quote(image)}; export it again")
        labels = {name: _cell(path, where, row.get(name)) for name in names}
        tasks.append(_Task(where, _location(row[image]), labels))
    return tasks


def _controls(path: Path, rows: list[dict], image: str, control) -> list[str]:
    """Columns that hold labels: those asked for, else those whose cells only a control writes."""
    columns = dict.fromkeys(key for row in rows for key in row if key not in _OWN and key != image)
    if control is not None:
        return _asked(path, control, columns)
    sure = [name for name in columns if any(_is_structured(row.get(name)) for row in rows)]
    if sure or len(columns) == 1:
        return sure or list(columns)
    if not columns:
        raise InputError(f"{path} has no column of labels; export it as JSON, which has all")
    raise InputError(
        f"{path}: the labels may be in {', '.join(columns)}; choose with --data-options "
        f"control={next(iter(columns))}, in Python control=, or export it as JSON"
    )


def _asked(path: Path, control, there: Collection[str]) -> list[str]:
    names = control.split(",") if isinstance(control, str) else list(control)
    for name in names:
        if name not in there:
            raise InputError(
                f"{path} has no labelling tag {quote(name)}; choose control= from "
                f"{', '.join(there)}"
            )
    return names


def _is_structured(cell) -> bool:
    if isinstance(cell, str) and cell[:1] in "[{" and cell:
        try:
            cell = json.loads(cell)
        except ValueError:
            return False
    if isinstance(cell, dict):
        return "choices" in cell or "taxonomy" in cell
    regions = cell if isinstance(cell, list) else []
    return any(isinstance(r, dict) and any(key.endswith("labels") for key in r) for r in regions)


def _cell(path: Path, where: str, cell) -> list[str]:
    """Labels in a cell: a name, choices, or regions."""
    if cell in (None, "", []):
        return []
    if isinstance(cell, str):
        if not _is_structured(cell):
            return [cell]
        cell = json.loads(cell)
    if isinstance(cell, dict) and ("choices" in cell or "taxonomy" in cell):
        return _names(cell.get("choices", ())) + [
            " / ".join(map(str, item)) for item in cell.get("taxonomy", ())
        ]
    if isinstance(cell, list) and all(isinstance(region, dict) for region in cell):
        keys = [[key for key in region if key.endswith("labels")] for region in cell]
        return [name for r, ks in zip(cell, keys, strict=True) for k in ks for name in _names(r[k])]
    raise InputError(f"{path}, {where}: {quote(str(cell))} is no label; export it as JSON")


def _names(given) -> list[str]:
    return [str(name) for name in ([given] if isinstance(given, str) else given)]


def _image_key(path: Path, rows: list[dict]) -> str:
    """Which entry of the tasks' data is the image."""
    found = Counter(
        key
        for row in rows[:1000]
        for key, value in row.items()
        if isinstance(value, str) and _IMAGE.search(_location(value))
    )
    if "image" in found or len(found) == 1:
        return "image" if "image" in found else next(iter(found))
    if found:
        raise InputError(f"{path}: the images may be in {', '.join(found)}; call one of them image")
    raise InputError(f"{path} names no image; export tasks whose data hold the path of an image")


def _location(value: str) -> str:
    """Path of an image, as an upload, local storage, a bucket or a page names it."""
    parts = urlsplit(value)
    local = parse_qs(parts.query).get("d", [""])[0]
    path = local or unquote(parts.path or value)
    return re.sub("^/?data/(?=upload/|local-files)", "", path).lstrip("/")


def _part(path: Path, tasks: Iterable[_Task], control, merge: str | None) -> Part:
    tasks = list(tasks)
    there = dict.fromkeys(name for task in tasks for name in task.labels)
    if control is not None:
        names = _asked(path, control, there)
    elif len(there) > 1:
        raise InputError(
            f"{path} has the labelling tags {', '.join(there)}; choose with --data-options "
            f"control={next(iter(there))} (several separated by commas), in Python control="
        )
    else:
        names = list(there)
    found: dict[str, list[tuple[str, set[str]]]] = {}
    for task in tasks:
        labels = {label for name in names for label in task.labels.get(name, ())}
        found.setdefault(task.image, []).append((task.where, labels))
    if not found:
        raise InputError(f"{path} holds no annotated task; annotate some, and export it again")
    labels, unknown = [], []
    for image, given in found.items():
        every, some = set.intersection(*(s for _, s in given)), set.union(*(s for _, s in given))
        if every != some and merge is None:
            raise InputError(
                f"{path}, {given[1][0]}: annotators differ in {quote(min(some - every))} on "
                f"{quote(image)}; choose with --data-options merge=any, merge=all or "
                "merge=unknown, in Python merge="
            )
        labels.append(some if merge == "any" else every)
        unknown.append(some - every)
    names = [re.split(r"[/\\]", image) for image in found]
    plain = ["/".join([*parts[:-1], _UPLOADED.sub("", parts[-1])]) for parts in names]
    return Part(
        path,
        list(found),
        labels,
        [given[0][0] for given in found.values()],
        unknown=unknown if merge == "unknown" else None,
        also=[name.removeprefix("upload/") for name in plain],
    )
