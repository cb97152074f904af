"""The commands ``ltml data voc-lt | coco-lt | check``."""

from pathlib import Path

from ltml.errors import InputError

__all__ = ["check", "coco_lt", "voc_lt"]


def voc_lt(
    root: Path,
    dry_run: bool = False,
    connections: int = 4,
    mirror: str | None = None,
    keep_archives: bool = False,
    quiet: bool = False,
) -> None:
    """Fetch VOC-LT (2.5 GB); run it again to go on where it was interrupted.

    Args:
        root: folder for the data, to be made if need be; VOCdevkit is found or put there.
        dry_run: only say what would be fetched, and how much.
        connections: files at a time.
        mirror: address under which the official hosts' files lie, as https://my.mirror/HOST/PATH.
        keep_archives: leave the archives once they are unpacked.
        quiet: no progress bars.
    """
    from ltml.data.benchmarks import fetch_voc_lt

    _fetch("voc-lt", fetch_voc_lt, root, dry_run, connections, mirror, keep_archives, quiet)


def coco_lt(
    root: Path,
    dry_run: bool = False,
    connections: int = 8,
    mirror: str | None = None,
    keep_archives: bool = False,
    quiet: bool = False,
) -> None:
    """Fetch COCO-LT (1.4 GB, of COCO's 20); run it again to go on where it was interrupted.

    Args:
        root: folder for the data, to be made if need be.
        dry_run: only say what would be fetched, and how much.
        connections: files at a time.
        mirror: address under which the official hosts' files lie, as https://my.mirror/HOST/PATH.
        keep_archives: leave the archive of annotations once it is unpacked.
        quiet: no progress bars.
    """
    from ltml.data.benchmarks import fetch_coco_lt

    _fetch("coco-lt", fetch_coco_lt, root, dry_run, connections, mirror, keep_archives, quiet)


def _fetch(name, fetch, root, dry_run, connections, mirror, keep_archives, quiet) -> None:
    from ltml.data.benchmarks import plan

    print(plan(name, root, mirror=mirror), flush=True)
    if dry_run:
        return
    report = fetch(
        root,
        mirror=mirror,
        connections=connections,
        keep_archives=keep_archives,
        progress=not quiet,
    )
    print(f"\n{report}")
    _raise_unless(report)


def check(
    data: str, root: Path, decode: bool = False, full: bool = False, quiet: bool = False
) -> None:
    """Compare what lies on the disk with the published counts, and name what is missing.

    Args:
        data: voc-lt or coco-lt.
        root: folder of the data.
        decode: also decode every image, which finds damaged ones and takes a minute.
        full: name everything that is missing or wrong, not the first ten of each kind.
        quiet: no progress bars.
    """
    from ltml.data.check import check

    report = check(root, data, decode=decode, progress=not quiet)
    print(report.text_of(most=None) if full else report)
    _raise_unless(report)


def _raise_unless(report) -> None:
    wrong = sum(not finding.ok for finding in report.findings)
    if wrong:
        raise InputError(
            f"{report.root} differs from the published {report.name} in {wrong} points"
        )
