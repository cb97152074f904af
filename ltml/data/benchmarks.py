"""Fetch VOC-LT and COCO-LT into the layout that ``ltml train`` reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from ltml.data import coco
from ltml.data.archives import extract_tar, extract_zip
from ltml.data.check import Report, check, check_ids, check_image
from ltml.data.download import Download, fetch, size_text
from ltml.data.published import BENCHMARKS, COCO_IMAGES, Benchmark, Remote
from ltml.errors import InputError
from ltml.files import Root, check_name, quote, read_list

__all__ = ["Plan", "fetch_coco_lt", "fetch_voc_lt", "plan"]

_YEARS = ("VOC2012", "VOC2007")
_PARTS = ("Annotations", "ImageSets", "JPEGImages")  # of a VOC tree; masks are not used
_INSTANCES = ("annotations/instances_train2017.json", "annotations/instances_val2017.json")
_MAX_LIST = 4 * 2**20
_MAX_IMAGE = 16 * 2**20  # COCO's largest has under 1 MB
_MAX_INSTANCES = 2**30  # train2017's and val2017's have 0.47 GB together


@dataclass(frozen=True)
class Plan:
    """What is to be fetched; prints as a table.

    Args:
        name: of the benchmark.
        root: folder that it goes into.
        files: the files, with their sizes where known.
        images: how many images will be fetched one by one, at most.
    """

    name: str
    root: Path
    files: tuple[Download, ...]
    images: int = 0

    @property
    def size(self) -> int:
        """Bytes to fetch, about."""
        mean = BENCHMARKS[self.name].image_bytes or 0
        return sum(item.size or 0 for item in self.files) + self.images * mean

    def __str__(self) -> str:
        facts = BENCHMARKS[self.name]
        lines = [f"{facts.title} into {self.root}"]
        for item in self.files:
            size = f"{item.size:,} bytes" if item.size else "a short list"
            lines.append(f"  {size:>19}  {item.url}")
            lines.append(f"  {'':19}  to {self.root / item.path}")
        if self.images:
            lines.append(
                f"  {f'{self.images:,} images':>19}  {COCO_IMAGES}/{{train2017,val2017}}/..., "
                f"{size_text(facts.image_bytes)} each"
            )
        if not self.files and not self.images:
            return f"{lines[0]}: everything is there"
        count = len(self.files) + self.images
        extracted = facts.extracted if any(item.size for item in self.files) else 0
        lines.append(
            f"in all {count:,} files, about {size_text(self.size)} to fetch"
            + (f", and {size_text(extracted)} on the disk to unpack them" if extracted else "")
        )
        return "\n".join(lines)


def plan(name: str, root: str | Path, *, mirror: str | None = None) -> Plan:
    """Tell what is still to be fetched; nothing is fetched or written.

    Args:
        name: ``"voc-lt"`` or ``"coco-lt"``.
        root: folder of the data; need not exist.
        mirror: see :func:`fetch_voc_lt`.

    Raises:
        InputError: if the name is unknown, or another list lies where the published one goes.
    """
    if name not in BENCHMARKS:
        raise InputError(f"data {quote(name)} cannot be fetched; choose from voc-lt, coco-lt")
    root = Path(root)
    if root.exists() and not root.is_dir():
        raise InputError(f"root {quote(str(root))} is not a folder; give a folder for the data")
    facts = BENCHMARKS[name]
    return (_plan_voc if name == "voc-lt" else _plan_coco)(facts, root, mirror)


def fetch_voc_lt(
    root: str | Path,
    *,
    mirror: str | None = None,
    connections: int = 4,
    keep_archives: bool = False,
    progress: bool = True,
    **options,
) -> Report:
    """Fetch VOC-LT: the archives of VOC2012 trainval and VOC2007 test, and the list of ids.

    What is there already is not fetched again, so an interrupted call is continued by the next. The
    archives are checked against torchvision's MD5s, the list against the published ids.

    Args:
        root: folder to hold ``VOCdevkit``, or an existing ``VOCdevkit``.
        mirror: address before the official ones, which follow as a path without ``https://``: the
            layout that ``wget --force-directories`` makes.
        connections: files at a time.
        keep_archives: leave the archives once they are unpacked.
        progress: show bars.
        options: of :func:`ltml.data.download.fetch`.

    Returns:
        The outcome of :func:`ltml.data.check.check`.

    Raises:
        InputError: naming the address or the file, if anything cannot be had.
    """
    root = Path(root)
    todo = plan("voc-lt", root, mirror=mirror)
    root.mkdir(parents=True, exist_ok=True)
    fetch(todo.files, root, connections=connections, progress=progress, title="VOC-LT", **options)
    for item in todo.files:
        if item.path.endswith(".tar"):
            extract_tar(root / item.path, _devkit(root), place=_in_devkit, progress=progress)
            if not keep_archives:
                (root / item.path).unlink()
    return check(root, "voc-lt", progress=progress)


def fetch_coco_lt(
    root: str | Path,
    *,
    mirror: str | None = None,
    connections: int = 8,
    keep_archives: bool = False,
    progress: bool = True,
    **options,
) -> Report:
    """Fetch COCO-LT: the annotations of 2017, the list of ids, and only the images of the split.

    Args:
        root: COCO's folder.
        mirror: as for :func:`fetch_voc_lt`.
        connections: files at a time.
        keep_archives: leave the archive of annotations once it is unpacked.
        progress: show bars.
        options: of :func:`ltml.data.download.fetch`.

    Returns:
        The outcome of :func:`ltml.data.check.check`.

    Raises:
        InputError: naming the address or the file, if anything cannot be had.
    """
    root = Path(root)
    todo = plan("coco-lt", root, mirror=mirror)
    root.mkdir(parents=True, exist_ok=True)
    options |= dict(connections=connections, progress=progress)
    fetch(todo.files, root, title="COCO-LT", **options)
    for item in todo.files:
        if item.path.endswith(".zip"):
            missing = [name for name in _INSTANCES if not (root / name).exists()]
            extract_zip(root / item.path, root, missing, limit=_MAX_INSTANCES)
            if not keep_archives:
                (root / item.path).unlink()
    fetch(list(_coco_images(root, mirror)), root, title="images", **options)
    return check(root, "coco-lt", progress=progress)


def _via(mirror: str | None, url: str) -> str:
    """Address of a file on a mirror."""
    parts = urlsplit(url)
    return f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" if mirror else url


def _archive(remote: Remote, mirror: str | None) -> Download:
    return Download(_via(mirror, remote.url), remote.path, remote.size, remote.digest)


def _list(facts: Benchmark, root: Path, folder: Path, mirror: str | None) -> list[Download]:
    """The list of ids, unless it is there."""

    def verify(path: Path) -> None:
        check_ids([word for _, word in read_list(path)], facts.train, where=str(path))

    path = folder / facts.id_list.path
    if path.exists():
        try:
            verify(path)
        except InputError as error:
            raise InputError(f"{error}; delete it to fetch the published list") from None
        return []
    name = str(path.relative_to(root))
    return [Download(_via(mirror, facts.id_list.url), name, limit=_MAX_LIST, verify=verify)]


def _devkit(root: Path) -> Path:
    """Folder that holds VOC2012 and VOC2007."""
    if any((root / part).is_dir() for part in _PARTS):
        raise InputError(f"root {quote(str(root))} is one VOC tree; give the folder above it")
    return root if any((root / year).is_dir() for year in _YEARS) else root / "VOCdevkit"


def _in_devkit(name: str) -> str | None:
    """Place of an archive's member under the devkit, for annotations, image sets and images."""
    top, _, rest = name.partition("/")
    parts = rest.split("/")
    kept = top == "VOCdevkit" and len(parts) > 2 and parts[1] in _PARTS
    return rest if kept else None


def _plan_voc(facts: Benchmark, root: Path, mirror: str | None) -> Plan:
    folder = _devkit(root)
    files = _list(facts, root, folder, mirror)
    listings = facts.id_list.path, "VOC2007/ImageSets/Main/test.txt"
    for year, listing, remote in zip(_YEARS, listings, facts.archives, strict=True):
        path = folder / listing
        if not path.exists() or not _complete(folder / year, path):
            files.append(_archive(remote, mirror))
    return Plan("voc-lt", root, tuple(files))


def _complete(tree: Path, listing: Path) -> bool:
    for line, name in read_list(listing):
        check_name(name, where=f"{listing}, line {line}")
        parts = tree / "Annotations" / f"{name}.xml", tree / "JPEGImages" / f"{name}.jpg"
        if not all(part.exists() for part in parts):
            return False
    return True


def _plan_coco(facts: Benchmark, root: Path, mirror: str | None) -> Plan:
    files = _list(facts, root, root, mirror)
    if not all((root / name).exists() for name in _INSTANCES):
        files += [_archive(remote, mirror) for remote in facts.archives]
    images = facts.train.images + facts.test.images
    if root.is_dir():  # the 450 MB of annotations are not read for this
        path = root / facts.id_list.path
        train = root / coco.image_folder(Root(root), "train2017")
        ids = coco.read_lt_ids(path) if path.exists() else ()
        images -= sum((train / f"{image:012}.jpg").exists() for image in ids)
        val = root / coco.image_folder(Root(root), "val2017")
        images -= min(sum(1 for _ in val.glob("*.jpg")), facts.test.images)
    return Plan("coco-lt", root, tuple(files), images)


def _coco_images(root: Path, mirror: str | None) -> Iterable[Download]:
    """The split's images that are not there, by their ``coco_url``."""
    bounds = Root(root)
    for split in ("train2017", "val2017"):
        listing = coco.find_instances(bounds, split)
        index = coco.read_instances(listing)
        ids = coco.read_lt_ids(coco.find_lt_list(bounds)) if split == "train2017" else index.imgs
        # into train2017/, unless there is an images/train2017/ already
        nested = (root / "images" / split).is_dir() and not (root / split).is_dir()
        for image in ids:
            where = f"{listing}: image {image}"
            if image not in index.imgs:
                raise InputError(f"{where} is not there; delete the file to fetch it anew")
            entry = index.imgs[image]
            name = check_name(entry["file_name"], where=where, folders=True)
            url = entry.get("coco_url", f"{COCO_IMAGES}/{split}/{name}")
            if not isinstance(url, str) or not url.startswith(f"{COCO_IMAGES}/"):
                raise InputError(f"{where} has the coco_url {quote(url)}, not one of {COCO_IMAGES}")
            path = f"images/{split}/{name}" if nested else f"{split}/{name}"
            if not (root / path).exists():
                size = entry.get("width"), entry.get("height")
                size = size if all(type(side) is int for side in size) else None
                verify = partial(check_image, size=size)
                yield Download(_via(mirror, url), path, limit=_MAX_IMAGE, verify=verify)
