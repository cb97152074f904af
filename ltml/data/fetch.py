"""Fetch VOC-LT and COCO-LT, and compare what is on the disk with what was published about them."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from ltml.data import Rows, coco, voc
from ltml.errors import InputError
from ltml.files import read_list
from ltml.labels import LabelMatrix
from ltml.options import choose

__all__ = ["BENCHMARKS", "check", "coco_lt", "voc_lt"]

# Counts and digests of ids are those of the published label lists; addresses and MD5s of VOC are
# torchvision's. COCO's host has no https: it answers with the certificate of s3.amazonaws.com.
BENCHMARKS = json.loads((files("ltml.data") / "benchmarks.json").read_text())


def digest_of_ids(names: Iterable[str]) -> str:
    """SHA-256 of image ids, whatever their order and form: train2017/000000000009.jpg is 9."""
    ids = sorted(Path(name).stem.lstrip("0") for name in names)
    return hashlib.sha256("".join(f"{name}\n" for name in ids).encode()).hexdigest()


def check_image(path: Path) -> None:
    """Raise :class:`InputError` unless an image can be decoded to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow raises many kinds over damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be decoded ({reason}); delete it") from None


def _check_list(path: Path, published: dict) -> None:
    if digest_of_ids(name for _, name in read_list(path)) != published["ids"]:
        raise InputError(f"{path} is not the published list of {published['images']:,} ids")


def _fetch(url: str, path: Path, digest: str | None, verify=None, *, bar: bool = False) -> None:
    """Fetch one file; it takes its name once it is whole, and has its digest or is verified."""
    import pooch

    http = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**18, timeout=60)

    def download(url: str, part: str, _) -> None:
        http(url, part, None)
        if verify:
            verify(Path(part))

    pooch.get_logger().setLevel("WARNING")
    registry, urls = {path.name: digest}, {path.name: url}
    fetcher = pooch.create(path.parent, "", registry=registry, urls=urls, retry_if_failed=3)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)  # else pooch's threads race
        fetcher.fetch(path.name, downloader=download)
    except (ValueError, OSError) as error:  # a wrong checksum; whatever requests raises
        raise InputError(
            f"{url} cannot be fetched ({error}); run again to continue, or fetch it elsewhere and "
            f"put it at {path}"
        ) from error


def _unpack(archive: Path, folder: Path, top: str, keep: Iterable[str]) -> None:
    """Unpack files below ``top`` of an archive into ``folder``, once all are whole."""
    part = folder / ".unpacking"
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        options = {"filter": "data"} if archive.suffix == ".tar" else {}
        shutil.unpack_archive(archive, part, **options)
        for path in [path for pattern in keep for path in (part / top).glob(pattern)]:
            target = folder / path.relative_to(part / top)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
    except Exception as error:  # many kinds over damaged archives
        raise InputError(f"{archive} cannot be unpacked ({error}); delete it") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fetch_archives(facts, root: Path, folder: Path, images: int, dry_run: bool, bar: bool) -> None:
    """Say what is missing; fetch and unpack it but for the images that come one by one."""
    archives = {root / Path(archive["url"]).name: archive for archive in facts["archives"]}
    archives = {  # one that is still there was not unpacked to its end
        path: archive
        for path, archive in archives.items()
        if path.exists() or not (folder / archive["holds"]).exists()
    }
    todo = [(archive["url"], path, archive["digest"]) for path, archive in archives.items()]
    ids = folder / facts["id_list"]["path"]
    if ids.exists():
        _check_list(ids, facts["train"])
    else:
        verify = partial(_check_list, published=facts["train"])
        todo.insert(0, (facts["id_list"]["url"], ids, None, verify))
    for url, path, *_ in todo:
        print(f"{url}\n    to {path}")
    size = sum(archive["size"] for archive in archives.values())
    size += images * facts.get("image_bytes", 0)
    unpacked = f", and {facts['unpacked'] / 1e9:.2f} GB to unpack them" if archives else ""
    text = f"about {size / 1e9:.2f} GB to fetch{unpacked}"
    print(f"in all {len(todo) + images:,} files, {text}", flush=True)
    if not dry_run:
        for item in todo:
            _fetch(*item, bar=bar)
        for path in archives:
            _unpack(path, folder, facts["top"], facts["keep"])
            path.unlink()


def voc_lt(root: Path, dry_run: bool = False, quiet: bool = False) -> None:
    """Fetch VOC-LT (2.5 GB); run it again to continue where it was interrupted.

    Args:
        root: folder for the data, made if need be; VOCdevkit is found or put there.
        dry_run: only say what would be fetched, and how much.
        quiet: no progress bars.
    """
    root = Path(root)
    if (root / "JPEGImages").is_dir():
        raise InputError(f"root {str(root)!r} is one VOC tree; give the folder above it")
    devkit = root if any(root.glob("VOC20*")) else root / "VOCdevkit"
    _fetch_archives(BENCHMARKS["voc-lt"], root, devkit, 0, dry_run, not quiet)
    if not dry_run:
        check("voc-lt", root, quiet=quiet)


def coco_lt(root: Path, dry_run: bool = False, connections: int = 8, quiet: bool = False) -> None:
    """Fetch COCO-LT (1.4 GB, of COCO's 20); run it again to continue where it was interrupted.

    Args:
        root: folder for the data, made if need be.
        dry_run: only say what would be fetched, and how much.
        connections: images at a time.
        quiet: no progress bars.
    """
    root, facts = Path(root), BENCHMARKS["coco-lt"]
    images = facts["train"]["images"] + facts["test"]["images"]
    for split in ("train2017", "val2017"):
        images -= sum(1 for _ in coco.image_folder(root, split).glob("*.jpg"))
    _fetch_archives(facts, root, root, max(images, 0), dry_run, not quiet)
    if not dry_run:
        _fetch_images(list(_missing_images(root, facts)), connections, quiet)
        check("coco-lt", root, quiet=quiet)


def _missing_images(root: Path, facts: dict) -> Iterator[tuple]:
    """The images of COCO-LT that are not there; their names are made of their ids."""
    train = coco.read_lt_ids(root / facts["id_list"]["path"])
    test = coco.read_instances(root / facts["archives"][0]["holds"]).images
    for split, ids in (("train2017", train), ("val2017", test)):
        folder = coco.image_folder(root, split)
        for path in (folder / f"{image:012}.jpg" for image in ids):
            if not path.exists():
                yield f"{facts['host']}/{split}/{path.name}", path, None, check_image


def _fetch_images(todo: list[tuple], connections: int, quiet: bool) -> None:
    """Fetch many small files at once; those that fail stop no other."""

    def attempt(item: tuple) -> InputError | None:
        try:
            _fetch(*item)
        except InputError as error:
            return error

    with ThreadPoolExecutor(max(1, connections)) as pool:
        done = tqdm(pool.map(attempt, todo), "images", len(todo), disable=True if quiet else None)
        failed = [error for error in done if error]
    if failed:
        raise InputError(f"{failed[0]} ({len(failed)} of {len(todo):,} images failed)")


def check(data: str, root: Path, decode: bool = False, quiet: bool = False) -> None:
    """Compare what is on the disk with the published counts, and name what is missing.

    Args:
        data: voc-lt or coco-lt.
        root: folder of the data.
        decode: also decode every image, which finds damaged ones and takes a minute.
        quiet: no progress bars.
    """
    facts, root, differ = choose("data", data, BENCHMARKS), Path(root), 0
    for split in ("train", "test"):
        for what, wrong in _compare(data, root, split, facts[split], decode, quiet):
            differ += bool(wrong)
            print(f"{'WRONG' if wrong else 'ok':5} {what}")
            for text in wrong[:10]:
                print(f"        {text}")
            if len(wrong) > 10:
                print(f"        and {len(wrong) - 10:,} more")
    if differ:
        raise InputError(
            f"{root} differs from the published {data} in {differ} points; fetch what is missing "
            f"with: ltml data {data} --root {root}"
        )
    print(f"complete; train on it with: ltml train --data {data} --root {root}")


def _compare(data, root: Path, split: str, published: dict, decode, quiet) -> Iterator[tuple]:
    """Yield what was compared, and what is wrong with it."""
    try:
        rows = _rows(data, root, split)
    except InputError as error:
        yield f"{split} split", [str(error)]
        return
    same = digest_of_ids(rows.read) == published["ids"]
    text = f"{len(rows.read):,} of {published['images']:,} in {rows.source}"
    yield f"{split} ids: {text}", [] if same else ["they are not the published ones"]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = pool.map(partial(_see, decode=decode), rows.read.values())
        bar = None if decode and not quiet else True
        seen = list(tqdm(seen, split, len(rows.read), disable=bar))
    yield f"{split} images: {len(seen):,}", [problem for _, problem in seen if problem]

    found = [row for row, _ in seen if row is not None]
    counts = LabelMatrix.from_lists(found, rows.class_names).counts
    pairs = zip(rows.class_names, counts, published["counts"], strict=False)
    wrong = [f"{name}: {n:,} images, not {wanted:,}" for name, n, wanted in pairs if n != wanted]
    yield f"{split} labels: {len(counts)} classes", wrong


def _rows(data: str, root: Path, split: str) -> Rows:
    if data == "voc-lt":
        return voc.rows(root, voc.find_lt_list(root) if split == "train" else "VOC2007/test")
    return coco.lt_rows(root) if split == "train" else coco.rows(root, "val2017")


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
