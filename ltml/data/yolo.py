"""YOLO: boxes or outlines in ``labels/*.txt``, as labels of the images that hold them."""

import re
from collections.abc import Sequence
from pathlib import Path

from ltml.core.errors import InputError
from ltml.core.files import check_class_names, lines_of, quote, read_text
from ltml.data.finder import IMAGE_SUFFIXES
from ltml.data.layouts import Part, Reading, Tree, head_of, layout

_YAML = "data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "*.yaml", "*.yml"
_LISTS = "classes.txt", "obj.names", "*.names", "*/classes.txt"
_BOX = re.compile(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*", re.IGNORECASE)


def recognises(tree: Tree) -> str | None:
    """Say how a folder is read, if it has label files of boxes."""
    found = _folders(tree)
    if not found:
        return None
    names = _names_file(tree)
    where = f", class names in {tree.say(names)}" if names else ""
    return f"a YOLO data set: {', '.join(list(found)[:3])}{where}"


def _folders(tree: Tree) -> dict[str, list[Path]]:
    """Folder of label files, relative to the root -> its files."""
    folders: dict[str, list[Path]] = {}
    for path in tree.match("*/*.txt", "*/*/*.txt", "*/*/*/*.txt"):
        folders.setdefault(tree.say(path.parent), []).append(path)
    return {
        folder: files
        for folder, files in folders.items()
        if (re.search(r"(^|/)labels(/|$)|(^|/)obj_\w*data$", folder))
        and any(_BOX.match(head_of(path, 400).split("\n")[0]) for path in files[:200])
    }


def _names_file(tree: Tree) -> Path | None:
    for pattern in _YAML:
        for path in tree.match(pattern):
            if re.search(r"^\s*names\s*:", head_of(path), re.MULTILINE):
                return path
    return next(iter(tree.match(*_LISTS)), None)


@layout("yolo")
def load(tree: Tree, *, classes: str | Sequence[str] | None = None) -> Reading:
    """Load a YOLO detection or segmentation data set: an image has the labels of its boxes.

    Label files are in ``labels/`` beside ``images/``, with a folder for each split in or above them
    (``labels/train``, ``train/labels``), or, as CVAT exports them, in ``obj_train_data/`` beside
    the images. An image whose label file is empty or missing has no label. Further arguments are
    those of :func:`ltml.data.layouts.assemble`.

    Args:
        tree: folder of the data set.
        classes: class names in the order of their numbers. Default: ``names`` of ``data.yaml``, or
            the lines of ``classes.txt`` or ``obj.names``.

    Raises:
        InputError: naming the file and line, if anything is missing or broken.
    """
    folders = _folders(tree)
    if not folders:
        raise InputError(f"{tree.root} has no folder labels/ with boxes such as 0 0.5 0.5 0.2 0.2")
    names = _names(tree, classes)
    parts: dict[str, Part] = {}
    for folder, files in folders.items():
        images = tree.root / re.sub(r"(^|/)labels(?=/|$)", r"\1images", folder)
        if not images.is_dir():
            images = tree.root / folder
        words = [w for w in folder.split("/") if w != "labels"]
        split = words[-1] if words else "all"
        split = re.sub(r"^obj_(\w+?)_?data$", r"\1", split)
        if split in parts:
            raise InputError(f"{tree.root} has two folders of split {quote(split)}; rename one")
        rows = {path.stem: _read(path, names) for path in files if path.name != "classes.txt"}
        inside = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        lost = sorted(rows.keys() - {path.stem for path in inside})
        listed = [path.name for path in inside] + lost  # those without a file are reported
        parts[split] = Part(
            tree.root / folder,
            listed,
            [rows.get(Path(name).stem if name not in rows else name, ()) for name in listed],
            folders=[images],
            ids=[f"{tree.say(images)}/{name}" for name in listed],
        )
    return Reading(recognises(tree), parts, names)


def _names(tree: Tree, classes) -> tuple[str, ...]:
    if classes is not None:
        return check_class_names(classes, where="classes")
    path = _names_file(tree)
    if path is None:
        raise InputError(
            f"{tree.root} has neither data.yaml nor classes.txt; write the class names into "
            "classes.txt, one on each line"
        )
    if path.suffix not in (".yaml", ".yml"):
        return check_class_names(
            [line.strip() for line in lines_of(read_text(path).strip())], where=str(path)
        )
    names = _yaml(path).get("names")
    if isinstance(names, dict):
        numbers = [int(n) if str(n).isdigit() else -1 for n in names]
        if sorted(numbers) != list(range(len(names))):
            raise InputError(f"{path}: names has the numbers {numbers[:10]}; give 0, 1, 2...")
        names = [name for _, name in sorted(zip(numbers, names.values(), strict=True))]
    if not isinstance(names, list):
        raise InputError(f"{path}: names is {quote(names)}; give a list of class names")
    return check_class_names([str(name) for name in names], where=str(path))


def _yaml(path: Path) -> dict:
    try:
        import yaml
    except ImportError:
        raise InputError(
            f"{path} is read by PyYAML, which is not installed: pip install pyyaml; or write the "
            "class names into classes.txt"
        ) from None
    try:
        content = yaml.safe_load(read_text(path, limit=2**20))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML: {text[:200]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no names; list the class names there")
    return content


def _read(path: Path, names: Sequence[str]) -> set[str]:
    found = set()
    for number, line in enumerate(lines_of(read_text(path, limit=2**24)), 1):
        if not line.strip():
            continue
        if not _BOX.fullmatch(line.strip()):
            raise InputError(
                f"{path}, line {number}: {quote(line)} is no box such as 0 0.5 0.5 0.2 0.2"
            )
        index = int(line.split()[0][:9])
        if index >= len(names):
            raise InputError(
                f"{path}, line {number}: class {index} is not among the {len(names)} names; add it "
                "to them"
            )
        found.add(names[index])
    return found
