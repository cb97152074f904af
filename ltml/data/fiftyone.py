"""FiftyOne: classification data sets with ``labels.json``, and its own format, ``samples.json``."""

from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, quote, read_json
from ltml.data.kinds import kind_of
from ltml.data.layouts import Part, Reading, Tree, by_split, json_keys, layout

_LIMIT = 2**30
_MASKS = ("mask", "points", "map")


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has FiftyOne's files."""
    found = _files(tree)
    return f"a FiftyOne data set: {tree.list(found)}" if found else None


def _files(tree: Tree) -> list[Path]:
    labels = [
        path
        for path in tree.match("labels.json", "*/labels.json")
        if json_keys(path, ("labels",)) and not json_keys(path, ("images", "annotations"))
    ]
    samples = tree.match("samples.json", "*/samples.json")
    return labels + [path for path in samples if json_keys(path, ("samples", "filepath"))]


@layout("fiftyone")
def load(tree: Tree, *, field: str | None = None) -> Reading:
    """Load a data set that FiftyOne exported.

    Read are ``FiftyOneImageClassificationDataset``, whose ``labels.json`` has the class, the
    classes or the Classification of each image in ``data/``; and ``FiftyOneDataset``, whose
    ``samples.json`` has fields of Classification, Classifications or Detections. There, the tags
    train, val and test are the splits. Further arguments are those of
    :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the data set, or of a folder for each split.
        field: name of the field of ``samples.json`` that holds the labels. Default: the only one.

    Raises:
        InputError: naming the file and image, if anything is missing or may be read in two ways.
    """
    found = _files(tree)
    if not found:
        raise InputError(
            f"{tree.root} has neither labels.json nor samples.json of FiftyOne; export the data set"
            " as FiftyOneImageClassificationDataset"
        )
    parts, classes = {}, {}
    for split, path in by_split(found, tree.root).items():
        content = read_json(path, limit=_LIMIT, drop=_MASKS)
        if not isinstance(content, dict):
            raise InputError(f"{path} is not FiftyOne's; export the data set again")
        if path.name == "samples.json":
            parts |= _samples(path, content, split, field)
        else:
            names, parts[split] = _labels(path, content)
            classes.update(dict.fromkeys(names))
    if not classes:
        return Reading(recognises(tree), parts)
    return Reading(recognises(tree), parts, check_class_names(list(classes), where=str(found[0])))


def _labels(path: Path, content: dict) -> tuple[list[str], Part]:
    names, entries = content.get("classes") or [], content.get("labels")
    if not isinstance(entries, dict) or not isinstance(names, list):
        raise InputError(f"{path} has no labels for each image; export the data set again")
    names = check_class_names(names, where=str(path)) if names else ()
    labels = []
    for image, target in entries.items():
        row = set()
        for item in _targets(target):
            name = item.get("label") if isinstance(item, dict) else item
            if type(name) is int and names:
                if not 0 <= name < len(names):
                    raise InputError(
                        f"{path}: image {quote(image)} has class {name}; give 0 to {len(names) - 1}"
                    )
                name = names[name]
            if not isinstance(name, str):
                raise InputError(
                    f"{path}: image {quote(image)} has label {quote(name)}; give a name, or list "
                    "the classes"
                )
            row.add(name)
        labels.append(row)
    used = {name for row in labels for name in row}
    classes = [*names, *sorted(used.difference(names))] if names else []
    return classes, Part(path, list(entries), labels, folders=[path.parent / "data", path.parent])


def _targets(target) -> list:
    """Labels in any form: one, several, Classification, Classifications, or none."""
    if target is None:
        return []
    if isinstance(target, dict):
        for key in ("classifications", "detections"):
            if isinstance(target.get(key), list):
                return target[key]
    return target if isinstance(target, list) else [target]


def _samples(path: Path, content: dict, split: str, field: str | None) -> dict[str, Part]:
    samples = content.get("samples")
    if not isinstance(samples, list) or not all(
        isinstance(sample, dict) and isinstance(sample.get("filepath"), str) for sample in samples
    ):
        raise InputError(f"{path} lists no samples with a filepath; export the data set again")
    kinds = ("Classification", "Classifications", "Detections", "Detection")
    fields = dict.fromkeys(
        key
        for sample in samples
        for key, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") in kinds
    )
    if not fields:
        raise InputError(f"{path} has no field of Classifications; label some samples")
    if field not in fields and (field is not None or len(fields) > 1):
        raise InputError(
            f"{path} has the fields {', '.join(fields)}; choose with --data-options "
            f"field={next(iter(fields))}, in Python field="
        )
    field = field or next(iter(fields))
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        tags = sample.get("tags")
        tags = [str(tag) for tag in tags if kind_of(str(tag))] if isinstance(tags, list) else []
        groups.setdefault(tags[0] if len(tags) == 1 else split, []).append(i)
    labels = []
    for i, sample in enumerate(samples):
        items = _targets(sample.get(field))
        row = [item.get("label") for item in items if isinstance(item, dict)]
        if not all(isinstance(name, str) for name in row):
            raise InputError(f"{path}: sample {i} has a label without a name; give it one")
        labels.append(set(row))
    images = [sample["filepath"] for sample in samples]
    whole = Part(path, images, labels, folders=[path.parent])
    return {name: whole.subset(index) for name, index in groups.items()}
