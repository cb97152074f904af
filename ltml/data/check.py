"""Compare VOC-LT and COCO-LT on the disk with what was published, and name what is missing."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from ltml.data import coco, voc
from ltml.data.published import BENCHMARKS, Benchmark, PublishedSplit, digest_of_ids
from ltml.errors import InputError
from ltml.files import Root, check_name, quote, read_list
from ltml.groups import GROUPS
from ltml.labels import LabelMatrix

__all__ = ["Finding", "Report", "check", "check_ids", "check_image"]

_SHOWN = 10  # details of a finding that are printed, unless all are asked for
_STRAY = "222564"  # first line of longtail2017img_id.pkl, beside the published COCO-LT list


@dataclass(frozen=True)
class Finding:
    """One thing that was compared.

    Args:
        what: the thing.
        ok: whether it is as published.
        text: what was found.
        details: what is missing or different, one each.
    """

    what: str
    ok: bool
    text: str
    details: tuple[str, ...] = ()

    def text_of(self, *, most: int | None = _SHOWN) -> str:
        """Lines of the report, with at most so many details."""
        shown = self.details[:most]
        lines = [f"  {'ok   ' if self.ok else 'WRONG'} {self.what}: {self.text}"]
        lines += [f"          {detail}" for detail in shown]
        if len(self.details) > len(shown):
            lines.append(f"          and {len(self.details) - len(shown):,} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """How a benchmark on the disk compares with the published one; prints as a table."""

    name: str
    root: Path
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything is as published."""
        return all(finding.ok for finding in self.findings)

    @property
    def problems(self) -> list[str]:
        """Every difference, in full."""
        wrong = (finding for finding in self.findings if not finding.ok)
        return [
            f"{finding.what}: {text}"
            for finding in wrong
            for text in (finding.text, *finding.details)
        ]

    def text_of(self, *, most: int | None = _SHOWN) -> str:
        """The report with at most so many details of each finding; None: with all."""
        last = (
            f"complete; train on it with: ltml train --data {self.name} --root {self.root}"
            if self.ok
            else "delete what is wrong; to fetch it and what is missing: "
            f"ltml data {self.name} --root {self.root}"
        )
        title = f"{BENCHMARKS[self.name].title} in {self.root}"
        lines = [finding.text_of(most=most) for finding in self.findings]
        return "\n".join([title, *lines, last])

    def __str__(self) -> str:
        return self.text_of()


@dataclass
class _Seen:
    """What was found of one split."""

    ids: list[str] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)  # classes of each labelled image
    images: list[tuple[Path, tuple[int, int] | None]] = field(default_factory=list)  # and size
    problems: list[str] = field(default_factory=list)  # images without file, labels or content
    source: str = ""  # where the ids stand
    error: str | None = None  # why nothing could be read
    classes: tuple[str, ...] | None = None


def check(root: str | Path, name: str, *, decode: bool = False, progress: bool = True) -> Report:
    """Compare what lies on the disk with the published benchmark: ids, images, labels, groups.

    Args:
        root: the folder that ``ltml train --root`` is given.
        name: ``"voc-lt"`` or ``"coco-lt"``.
        decode: also decode every image, which finds damaged ones and takes a minute.
        progress: show a bar while decoding.

    Raises:
        InputError: if the name is unknown or the root is no folder. What is wrong inside it stands
            in the report.
    """
    if name not in BENCHMARKS:
        raise InputError(f"data {quote(name)} has no published counts; choose from voc-lt, coco-lt")
    facts, root = BENCHMARKS[name], Path(root)
    Root(root)  # raises unless it is a folder
    splits = _see_voc(root) if name == "voc-lt" else _see_coco(root)
    findings = []
    for split, published, seen in zip(
        ("training", "test"), (facts.train, facts.test), splits, strict=True
    ):
        if decode:
            _decode(seen, f"{facts.title} {split}", progress)
        findings += _compare(split, facts, published, seen)
    return Report(name, root, tuple(findings))


def check_ids(ids: list[str], published: PublishedSplit, *, where: str) -> None:
    """Raise :class:`InputError` unless these are a split's published image ids."""
    if digest_of_ids(ids) == published.ids:
        return
    if ids and ids[0] == _STRAY:
        raise InputError(
            f"{where} is longtail2017img_id.pkl, another split's list that lies beside the "
            "published longtail2017/img_id.pkl"
        )
    raise InputError(
        f"{where} holds {len(ids):,} ids, "
        + ("some of them not those of" if len(ids) == published.images else "not")
        + f" the published {published.images:,}"
    )


def check_image(path: Path, size: tuple[int, int] | None = None) -> None:
    """Raise :class:`InputError` unless an image can be decoded to its end and has the given size.

    Args:
        path: the file.
        size: width and height in pixels; None: any.
    """
    try:
        with Image.open(path) as image:
            if size is not None and image.size != size:
                raise InputError(
                    f"{path} has {image.width} x {image.height} pixels, not {size[0]} x {size[1]}"
                )
            image.load()
    except InputError:
        raise
    except Exception as error:  # Pillow raises many kinds over damaged files
        raise InputError(
            f"{path} cannot be decoded ({str(error) or type(error).__name__}); delete it to fetch "
            "it anew"
        ) from None


def _see_voc(root: Path) -> Iterator[_Seen]:
    try:
        devkit = voc.Devkit.find(root)
    except InputError as error:
        yield from (_Seen(error=str(error)), _Seen(error=str(error)))
        return
    column = {name: c for c, name in enumerate(voc.VOC_CLASSES)}
    for tree in ("VOC2012", "VOC2007"):
        seen = _Seen(classes=voc.VOC_CLASSES)
        try:
            if tree == "VOC2012":
                listing = voc.find_lt_list(devkit)
            else:
                listing, _ = devkit.image_set("VOC2007/test")
            for line, name in read_list(listing):
                seen.ids.append(name)
                try:
                    annotation, image = devkit.annotated(
                        name, [tree], where=f"{listing}, line {line}"
                    )
                    objects = set(voc.read_annotation(annotation))
                    unknown = objects - column.keys()
                    if unknown:
                        raise InputError(f"{annotation}: class {quote(min(unknown))} is not VOC's")
                except InputError as error:
                    seen.problems.append(_without_remedy(error))
                    continue
                seen.images.append((image, None))
                seen.rows.append([column[name] for name in objects])
            seen.source = str(listing)
        except InputError as error:
            seen.error = str(error)
        _drop_empty(seen)
        yield seen


def _see_coco(path: Path) -> Iterator[_Seen]:
    root = Root(path)
    for split in ("train2017", "val2017"):
        seen = _Seen()
        try:
            ids = coco.read_lt_ids(coco.find_lt_list(root)) if split == "train2017" else None
            listing = coco.find_instances(root, split)
            # The list of training ids is a file of its own; the test ids are those of this one.
            seen.source = str(coco.find_lt_list(root) if ids else listing)
            seen.ids = [str(image) for image in ids or ()]
            index = coco.read_instances(listing)
            categories = sorted(index.getCatIds())
            seen.classes = tuple(index.cats[category]["name"] for category in categories)
            column = {category: c for c, category in enumerate(categories)}
            seen.ids = seen.ids or [str(image) for image in index.getImgIds()]
            folder = coco.image_folder(root, split)
            for image in map(int, seen.ids):
                where = f"{listing}: image {image}"
                try:
                    if image not in index.imgs:
                        raise InputError(f"{where} is not there")
                    entry = index.imgs[image]
                    name = check_name(entry["file_name"], where=where, folders=True)
                    file = root.find(f"{folder}/{name}", where=where)
                    if file is None:
                        raise InputError(f"{root.path / folder / name} is missing")
                except InputError as error:
                    seen.problems.append(_without_remedy(error))
                    continue
                seen.images.append((file, _size_of(entry)))
                seen.rows.append([column[category] for category in coco.labels_of(index, image)])
        except InputError as error:
            seen.error = str(error)
        _drop_empty(seen)
        yield seen


def _size_of(entry: dict) -> tuple[int, int] | None:
    size = entry.get("width"), entry.get("height")
    return size if all(type(side) is int for side in size) else None


def _without_remedy(error: InputError) -> str:
    """Leave out 'add it, or take the line out': a published list is not to be edited."""
    return str(error).rpartition("; ")[0] or str(error)


def _drop_empty(seen: _Seen) -> None:
    seen.problems += [f"{path} is empty" for path, _ in seen.images if not path.stat().st_size]


def _decode(seen: _Seen, title: str, progress: bool) -> None:
    def problem(item) -> str | None:
        try:
            check_image(*item)
        except InputError as error:
            return str(error)

    items = [item for item in seen.images if item[0].stat().st_size]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(pool.map(problem, items), title, len(items), disable=None if progress else True)
        seen.problems += filter(None, bar)


def _compare(split: str, facts: Benchmark, published: PublishedSplit, seen: _Seen):
    """Findings about one split."""
    if seen.error is not None:
        yield Finding(f"{split} split", False, seen.error)
        return
    try:
        check_ids(seen.ids, published, where=seen.source)
        yield Finding(f"{split} ids", True, f"the published {published.images:,} ({seen.source})")
    except InputError as error:
        yield Finding(f"{split} ids", False, str(error))
    if seen.classes != facts.classes:
        yield Finding(
            f"{split} classes", False, f"{len(seen.classes)}, published are {len(facts.classes)}",
            tuple(sorted(set(seen.classes) ^ set(facts.classes))),
        )  # fmt: skip
        return
    whole = len(seen.ids) - len(seen.problems)
    yield Finding(
        f"{split} images",
        whole == published.images and not seen.problems,
        f"{whole:,} of {published.images:,}",
        tuple(seen.problems),
    )
    labels = LabelMatrix.from_lists(seen.rows, facts.classes)
    wrong = tuple(
        f"{name}: {found:,} images, not {count:,}"
        for name, found, count in zip(facts.classes, labels.counts, published.counts, strict=True)
        if found != count
    )
    yield Finding(
        f"{split} labels", not wrong,
        f"{len(wrong)} of {len(facts.classes)} classes differ from the published counts" if wrong
        else f"{labels.counts.sum():,}, in each class as many images as published",
        wrong,
    )  # fmt: skip
    if split == "training":
        groups = tuple(len(classes) for classes in labels.groups().values())
        text = ", ".join(f"{count} {name}" for count, name in zip(groups, GROUPS, strict=True))
        yield Finding("groups", groups == facts.groups, f"{text} classes")
    else:
        bare = sum(not row for row in seen.rows)
        yield Finding(
            "test images without a label", bare == published.unlabelled, f"{bare:,}",
            () if bare == published.unlabelled else (f"published: {published.unlabelled}",),
        )  # fmt: skip
