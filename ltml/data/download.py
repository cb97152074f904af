"""Fetch files over http(s): several at once, resumed, checked, and only inside a folder."""

import os
import queue
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from ltml.data._http import Download, HopelessError, OneFile, make_opener, problem_of
from ltml.errors import InputError
from ltml.files import check_name, quote

__all__ = ["Download", "fetch", "inside", "size_text"]

_MOST_FAILED = 10  # files that may fail, each for itself, before the rest is given up


def fetch(
    downloads: Sequence[Download],
    root: str | Path,
    *,
    connections: int = 4,
    retries: int = 4,
    timeout: float = 30.0,
    backoff: float = 0.5,
    progress: bool = True,
    title: str = "fetch",
) -> None:
    """Fetch files into a folder; those that are there already are left as they are.

    A file arrives as ``<name>.part`` and is renamed when it is whole and checked, so a file under
    its own name is never half a file. What was cut off is resumed where the server allows it.

    Args:
        downloads: the files.
        root: folder that they go into; nothing is written outside it.
        connections: files under way at a time.
        retries: further attempts after one that brought nothing.
        timeout: seconds without a byte after which an attempt is given up.
        backoff: seconds before the second attempt; doubled for each further one.
        progress: show a bar.
        title: what the bar is called.

    Raises:
        InputError: naming the address and the cause, if a file cannot be had. The others are
            fetched all the same, unless the cause is common to all; what came is kept.
    """
    if connections < 1:
        raise InputError(f"connections={connections} is too few; give at least 1")
    root = Path(root)
    downloads = [item for item in downloads if not _is_there(item, inside(root, item.path))]
    _check_space(downloads, root)
    todo, done = queue.SimpleQueue(), queue.SimpleQueue()
    for item in downloads:
        todo.put(item)
    # In bytes where any size is known: a few lists beside the archives do not count.
    in_bytes = any(item.size is not None for item in downloads)
    unit = dict(unit="B", unit_scale=True) if in_bytes else dict(unit="file")
    total = sum(item.size or 0 for item in downloads) if in_bytes else len(downloads)
    stop, lock = threading.Event(), threading.Lock()

    with tqdm(
        total=total, desc=title, disable=None if progress and downloads else True, **unit
    ) as bar:

        def advance(count: int) -> None:
            if in_bytes and count:
                with lock:
                    bar.update(count)

        def work() -> None:
            opener = make_opener()
            while not stop.is_set():
                try:
                    item = todo.get_nowait()
                except queue.Empty:
                    return
                try:
                    one = OneFile(item, inside(root, item.path), opener, timeout, stop, advance)
                    one.run(retries, backoff)
                except BaseException as error:  # of whatever kind, the main thread raises it
                    done.put(error)
                else:
                    done.put(None)

        # Daemons, so that Ctrl-C need not wait for a server that has fallen silent.
        threads = [
            threading.Thread(target=work, daemon=True)
            for _ in range(min(connections, len(downloads)))
        ]
        for thread in threads:
            thread.start()
        failed: list[InputError] = []
        try:
            for _ in downloads:
                error = done.get()
                if error is None:
                    if not in_bytes:
                        bar.update()
                    continue
                if isinstance(error, HopelessError) or not isinstance(error, InputError):
                    raise error
                failed.append(error)
                if len(failed) >= _MOST_FAILED:
                    break
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=2)
    if failed:
        more = f" ({len(failed)} files failed; this is the first)" if len(failed) > 1 else ""
        raise InputError(f"{failed[0]}{more}")


def inside(root: Path, name: str) -> Path:
    """Path for a file in a folder, never outside it, be it by a name or by a symbolic link.

    Raises:
        InputError: naming what leads out.
    """
    check_name(name, where="download", folders=True)
    folder = (root / name).parent
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{folder} leads out of {root} by a symbolic link; remove the link, or give another "
            "root"
        )
    return root / name


def _is_there(item: Download, path: Path) -> bool:
    if urlsplit(item.url).scheme not in ("http", "https") or not urlsplit(item.url).hostname:
        raise InputError(f"{quote(item.url)} is no address of a file; give http:// or https://")
    if not os.path.lexists(path):
        return False
    wrong = problem_of(path, item.size, item.digest)
    if wrong:
        raise InputError(f"{path} is there already, but {wrong}; delete it to fetch it anew")
    return True


def _check_space(downloads: Sequence[Download], root: Path) -> None:
    there = root if root.exists() else next(p for p in root.absolute().parents if p.exists())
    need, free = sum(item.size or 0 for item in downloads), shutil.disk_usage(there).free
    if need > free:
        raise InputError(
            f"{root} has {size_text(free)} free, and {size_text(need)} are to be fetched; "
            "make room, or give another root"
        )


def size_text(count: float) -> str:
    """Bytes for people.

    Example:
        >>> size_text(13_704), size_text(1_999_639_040)
        ('14 kB', '2.00 GB')
    """
    for bound, unit, digits in ((1e9, "GB", 2), (1e6, "MB", 0), (1e3, "kB", 0)):
        if count >= bound:
            return f"{count / bound:.{digits}f} {unit}"
    return f"{count} bytes"
