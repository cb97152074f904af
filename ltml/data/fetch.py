"""Fetch VOC-LT and COCO-LT, and compare what is on the disk with what was published about them."""

import hashlib
import os
import shutil
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image
from tqdm.auto import tqdm

from ltml.core.errors import InputError
from ltml.core.files import read_list
from ltml.core.labels import GROUPS, LabelMatrix
from ltml.core.options import choose
from ltml.data import coco, voc
from ltml.data.splits import Rows


@dataclass(frozen=True)
class Remote:
    """A published file: its address, place below the root, bytes, and digest where known."""

    url: str
    path: str
    size: int | None = None
    digest: str | None = None
    verify: Callable[[Path], None] | None = None  # raises InputError unless it is the file


@dataclass(frozen=True)
class Published:
    """One split: its images, those of each class, the digest of its ids, images without a label."""

    images: int
    counts: Sequence[int]
    ids: str
    unlabelled: int = 0


@dataclass(frozen=True)
class Benchmark:
    """What was published: class names in column order, the splits, and where the files are.

    ``unpacked`` is what the archives take on the disk, ``image_bytes`` the mean size of images that
    are fetched one by one.
    """

    classes: tuple[str, ...]
    train: Published
    test: Published
    id_list: Remote
    archives: Sequence[Remote]
    unpacked: int
    image_bytes: int = 0


def _benchmark(classes, train: dict, test: dict, id_list: dict, archives, **sizes) -> Benchmark:
    """Read one table of ``benchmarks.toml``."""
    parts = Published(**train), Published(**test), Remote(**id_list)
    return Benchmark(tuple(classes), *parts, [Remote(**item) for item in archives], **sizes)


_FACTS = tomllib.loads(Path(__file__).with_name("benchmarks.toml").read_text("utf-8"))
BENCHMARKS = {name: _benchmark(**facts) for name, facts in _FACTS.items()}
_COCO = "http://images.cocodataset.org"  # no https: see benchmarks.toml
_TREES = {  # of VOC-LT: and the list of the images that it needs
    "VOC2012": "longtail2012/img_id.txt",
    "VOC2007": "VOC2007/ImageSets/Main/test.txt",
}
_INSTANCES = {f"annotations/instances_{split}.json": split for split in ("train2017", "val2017")}
_RETRIES, _MOST_FAILED = 3, 10


def digest_of_ids(ids: Iterable[str]) -> str:
    """SHA-256 of image ids, whatever their order: sorted, one on each line."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(ids)).encode()).hexdigest()


def check_image(path: Path) -> None:
    """Raise :class:`InputError` unless an image can be decoded to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises many kinds over damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be decoded ({reason}); delete it") from None


def _fetch(item: Remote, root: Path, quiet: bool = True) -> None:
    """Fetch one file; it takes its name once it is whole and checked."""
    import pooch

    hidden = True if quiet else None  # None: where nobody watches, as in a log file
    bar = tqdm(desc=item.path, total=item.size or 1, unit="B", unit_scale=True, disable=hidden)
    http = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**18, timeout=60)

    def download(url: str, part: str, _) -> None:
        http(url, part, None)
        size = Path(part).stat().st_size
        if item.size not in (None, size):
            raise InputError(f"it has {size:,} bytes, not {item.size:,}")
        if item.verify:
            item.verify(Path(part))

    pooch.get_logger().setLevel("WARNING")
    registry, urls = {item.path: item.digest}, {item.path: item.url}
    files = pooch.create(root, "", registry=registry, urls=urls, retry_if_failed=_RETRIES)
    try:
        (root / item.path).parent.mkdir(parents=True, exist_ok=True)  # else pooch's threads race
        files.fetch(item.path, downloader=download)
    except (ValueError, OSError) as error:  # a wrong checksum; whatever requests raises
        raise InputError(
            f"{item.url} cannot be fetched ({error}); run again to continue, or fetch it elsewhere "
            f"and put it at {root / item.path}"
        ) from error


def _fetch_all(items: list[Remote], root: Path, connections: int, quiet: bool) -> None:
    """Fetch many small files at once; a few may fail without stopping the others."""
    failed, pool = [], ThreadPoolExecutor(max(1, connections))
    try:
        done = as_completed([pool.submit(_fetch, item, root) for item in items])
        for future in tqdm(done, "images", len(items), disable=True if quiet else None):
            failed += [future.exception()] if future.exception() else []
            if len(failed) == _MOST_FAILED:
                break
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        raise InputError(f"{failed[0]} ({len(failed)} of {len(items):,} images failed)")


def _unpack(archive: Path, folder: Path, wanted: Callable[[str], bool], top: str = "") -> None:
    """Unpack the wanted files of an archive; those below ``top`` in it go into ``folder``.

    They are moved into place when all are whole. Links and devices are refused, and no name leads
    out of the folder.
    """
    part = folder / ".unpacking"
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                file.extractall(part, filter(wanted, file.namelist()))
        else:
            with tarfile.open(archive, "r:") as file:
                members = [m for m in file if wanted(m.name) and not m.isdir()]
                for member in members:
                    if not member.isreg():
                        raise ValueError(f"{member.name!r} is a link or a device")
                file.extractall(part, members, filter="data")
        for path in [path for path in (part / top).rglob("*") if path.is_file()]:
            target = folder / path.relative_to(part / top)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    except Exception as error:  # both modules raise many kinds over damaged archives
        raise InputError(f"{archive} cannot be unpacked ({error}); delete it") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _verify_list(path: Path, published: Published) -> None:
    if digest_of_ids(name for _, name in read_list(path)) != published.ids:
        raise InputError(f"{path} is not the published list of {published.images:,} ids; delete it")


def _fetch_parts(
    facts: Benchmark, root: Path, folder: Path, archives: list[Remote], images: int = 0,
    *, wanted: Callable[[str], bool], top: str = "", dry_run: bool, keep: bool, quiet: bool,
) -> bool:  # fmt: skip
    """Fetch and unpack the list and archives that are missing; in a dry run only say which."""
    todo, path = list(archives), folder / facts.id_list.path
    verify = partial(_verify_list, published=facts.train)
    if path.exists():
        verify(path)
    else:
        name = path.relative_to(root).as_posix()
        todo.insert(0, replace(facts.id_list, path=name, verify=verify))
    for item in todo:
        size = f"{item.size:,} bytes" if item.size else "a short list"
        print(f"{size:>19}  {item.url}\n{'':19}  to {root / item.path}")
    if images:
        print(f"{images:>12,} images  from {_COCO}, {facts.image_bytes / 1e3:.0f} kB each")
    size = (sum(item.size or 0 for item in todo) + images * facts.image_bytes) / 1e9
    unpacked = f", and {facts.unpacked / 1e9:.2f} GB to unpack them" if archives else ""
    count = len(todo) + images
    print(f"in all {count:,} files, about {size:.2f} GB to fetch{unpacked}", flush=True)
    if dry_run:
        return False
    for item in todo:
        _fetch(item, root, quiet)
    for item in archives:
        _unpack(root / item.path, folder, wanted, top)
        if not keep:
            (root / item.path).unlink()
    return True


def _coco_images(root: Path) -> Iterator[Remote]:
    """The images of COCO-LT that are not there; their names are made of their ids."""
    for listing, split in _INSTANCES.items():
        if split == "train2017":
            ids = coco.read_lt_ids(root / BENCHMARKS["coco-lt"].id_list.path)
        else:
            ids = coco.read_instances(root / listing).images
        folder = coco.image_folder(root, split)
        for path in (folder / f"{image:012}.jpg" for image in ids):
            if not path.exists():
                name = path.relative_to(root).as_posix()
                yield Remote(f"{_COCO}/{split}/{path.name}", name, verify=check_image)


def _rows(data: str, root: Path, train: bool) -> Rows:
    if data == "voc-lt":
        return voc.rows(root, voc.find_lt_list(root) if train else "VOC2007/test")
    return coco.lt_rows(root) if train else coco.rows(root, "val2017")


def _see(read: Callable, decode: bool) -> tuple[list[int] | None, str | None]:
    """Classes of an image, where they can be read, and what is wrong with it."""
    row = None
    try:
        path, row = read()
        if not path.stat().st_size:
            raise InputError(f"{path} is empty; delete it")
        if decode:
            check_image(path)
    except InputError as error:
        return row, str(error)
    return row, None


def _compare(data: str, root: Path, decode: bool, quiet: bool) -> Iterator[tuple]:
    """Yield what was compared, whether it is as published, what was found, and details."""
    facts = choose("data", data, BENCHMARKS)
    for split, published in (("training", facts.train), ("test", facts.test)):
        try:
            rows = _rows(data, root, split == "training")
        except InputError as error:
            yield f"{split} split", False, str(error), []
            continue
        ids = list(rows.read)
        if data == "coco-lt":  # train2017/000000000009.jpg is 9
            ids = [Path(name).stem.lstrip("0") for name in ids]
        text = f"{len(ids):,} of {published.images:,} in {rows.source}"
        yield f"{split} ids", digest_of_ids(ids) == published.ids, text, []

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            seen = pool.map(partial(_see, decode=decode), rows.read.values())
            seen = list(tqdm(seen, split, len(ids), disable=None if decode and not quiet else True))
        found = [row for row, _ in seen if row is not None]
        problems = [problem for _, problem in seen if problem]
        whole = len(ids) - len(problems)
        text = f"{whole:,} of {published.images:,}"
        yield f"{split} images", whole == published.images, text, problems

        if rows.class_names != facts.classes:
            differ = sorted(set(rows.class_names) ^ set(facts.classes))
            yield f"{split} classes", False, f"{len(rows.class_names)}", differ
            continue
        labels = LabelMatrix.from_lists(found, facts.classes)
        counts, groups = labels.counts, labels.groups()
        pairs = zip(facts.classes, counts, published.counts, strict=True)
        wrong = [
            f"{name}: {n:,} images, not {wanted:,}" for name, n, wanted in pairs if n != wanted
        ]
        text = ", ".join(f"{len(groups[name])} {name}" for name in GROUPS) + " classes"
        yield f"{split} labels", not wrong, text, wrong
        bare = sum(not row for row in found)
        text = f"{bare} of {published.unlabelled}"
        yield f"{split} images without a label", bare == published.unlabelled, text, []


def voc_lt(
    root: Path, dry_run: bool = False, keep_archives: bool = False, quiet: bool = False
) -> None:
    """Fetch VOC-LT (2.5 GB); run it again to continue where it was interrupted.

    Args:
        root: folder for the data, made if need be; VOCdevkit is found or put there.
        dry_run: only say what would be fetched, and how much.
        keep_archives: leave the archives once they are unpacked.
        quiet: no progress bars.
    """
    root, facts = Path(root), BENCHMARKS["voc-lt"]
    if (root / "JPEGImages").is_dir():
        raise InputError(f"root {str(root)!r} is one VOC tree; give the folder above it")
    devkit = root if any((root / tree).is_dir() for tree in _TREES) else root / "VOCdevkit"
    archives = []
    for (tree, listing), archive in zip(_TREES.items(), facts.archives, strict=True):
        names = read_list(devkit / listing) if (devkit / listing).exists() else []
        files = [f"Annotations/{name}.xml" for _, name in names]
        files += [f"JPEGImages/{name}.jpg" for _, name in names]
        if not files or not all((devkit / tree / file).exists() for file in files):
            archives.append(archive)

    def wanted(name: str) -> bool:  # masks are not used
        parts = PurePosixPath(name).parts
        return len(parts) > 3 and parts[1] in _TREES and not parts[2].startswith("Segmentation")

    options = {"dry_run": dry_run, "keep": keep_archives, "quiet": quiet}
    if _fetch_parts(facts, root, devkit, archives, wanted=wanted, top="VOCdevkit", **options):
        check("voc-lt", root, quiet=quiet)


def coco_lt(
    root: Path,
    dry_run: bool = False,
    connections: int = 8,
    keep_archives: bool = False,
    quiet: bool = False,
) -> None:
    """Fetch COCO-LT (1.4 GB, of COCO's 20); run it again to continue where it was interrupted.

    Args:
        root: folder for the data, made if need be.
        dry_run: only say what would be fetched, and how much.
        connections: images at a time.
        keep_archives: leave the archive of annotations once it is unpacked.
        quiet: no progress bars.
    """
    root, facts = Path(root), BENCHMARKS["coco-lt"]
    archives = [] if all((root / name).exists() for name in _INSTANCES) else list(facts.archives)
    images = facts.train.images + facts.test.images
    for split in _INSTANCES.values():  # the 450 MB of annotations are not read for this
        images -= sum(1 for _ in coco.image_folder(root, split).glob("*.jpg"))
    options = {"dry_run": dry_run, "keep": keep_archives, "quiet": quiet}
    wanted = _INSTANCES.__contains__
    if _fetch_parts(facts, root, root, archives, max(images, 0), wanted=wanted, **options):
        _fetch_all(list(_coco_images(root)), root, connections, quiet)
        check("coco-lt", root, quiet=quiet)


def check(
    data: str, root: Path, decode: bool = False, full: bool = False, quiet: bool = False
) -> None:
    """Compare what is on the disk with the published counts, and name what is missing.

    Args:
        data: voc-lt or coco-lt.
        root: folder of the data.
        decode: whether to decode every image, which finds damaged ones and takes a minute.
        full: name everything that is missing or wrong, not the first ten of each kind.
        quiet: no progress bars.
    """
    differ = 0
    for what, ok, text, details in _compare(data, Path(root), decode, quiet):
        differ += not ok
        print(f"{'ok' if ok else 'WRONG':5} {what}: {text}")
        for detail in details if full else details[:10]:
            print(f"        {detail}")
        if len(details) > 10 and not full:
            print(f"        and {len(details) - 10:,} more")
    if differ:
        raise InputError(
            f"{root} differs from the published {data} in {differ} points; fetch what is missing "
            f"with: ltml data {data} --root {root}"
        )
    print(f"complete; train on it with: ltml train --data {data} --root {root}")
