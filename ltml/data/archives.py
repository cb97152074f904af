"""Unpack archives that came from elsewhere: regular files only, inside a folder, within a limit."""

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm.auto import tqdm

from ltml.data.download import inside, size_text
from ltml.errors import InputError
from ltml.files import check_name, quote

__all__ = ["extract_tar", "extract_zip"]

_CHUNK = 2**20


def extract_tar(
    archive: str | Path,
    folder: str | Path,
    *,
    place: Callable[[str], str | None] = lambda name: name,
    limit: int | None = None,
    progress: bool = True,
) -> int:
    """Unpack the regular files of an uncompressed tar archive.

    Every member is looked at before the first is written. A name that is absolute or holds ``..``
    is refused wherever it stands; links, devices and sparse files where they would be unpacked.
    Owners and modes are not taken over. Each file appears under its name only when it is whole.

    Args:
        archive: the tar file.
        folder: where its members go; nothing is written outside it.
        place: relative path for a member's name, or None to leave the member out.
        limit: most bytes to write. Default: the archive's own size, which honest members cannot
            exceed.
        progress: show a bar.

    Returns:
        How many files were written.

    Raises:
        InputError: naming the archive and the member.
    """
    archive, folder = Path(archive), Path(folder)
    limit = archive.stat().st_size if limit is None else limit
    try:
        with tarfile.open(archive, "r:") as tar:
            chosen = []
            for member in tar:
                where = f"{archive}: member {quote(member.name)}"
                name = check_name(member.name.removeprefix("./") or ".", where=where, folders=True)
                name = place(name)
                if name is None or member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(f"{where} is no plain file, but {_kind(member)}; refused")
                try:
                    if hasattr(tarfile, "data_filter"):  # Python 3.11.4; a second lock on the door
                        tarfile.data_filter(member, str(folder))
                except tarfile.TarError as error:
                    raise InputError(f"{where} is refused: {error}") from None
                chosen.append((member, inside(folder, name)))
            _check_sum(archive, folder, (member.size for member, _ in chosen), limit)
            bar = tqdm(
                chosen, f"unpack {archive.name}", unit="file", disable=None if progress else True
            )
            for member, path in bar:
                with tar.extractfile(member) as source:
                    _write(source, path, member.size, where=f"{archive}: {member.name}")
    except InputError:
        raise
    except Exception as error:  # tarfile raises many kinds over damaged archives
        raise InputError(f"{archive} is no tar archive that can be read: {error}") from None
    return len(chosen)


def extract_zip(
    archive: str | Path, folder: str | Path, members: Iterable[str], *, limit: int = 2**30
) -> None:
    """Unpack the named members of a zip archive; every other one is left alone.

    Args:
        archive: the zip file.
        folder: where they go, under their names.
        members: names, of regular files.
        limit: most bytes to write for all of them, whatever the archive announces.

    Raises:
        InputError: naming the archive and the member.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with zipfile.ZipFile(archive) as file:
            chosen = []
            for name in members:
                where = f"{archive}: member {quote(name)}"
                path = inside(folder, check_name(name, where=where, folders=True))
                try:
                    info = file.getinfo(name)
                except KeyError:
                    raise InputError(f"{archive} has no member {quote(name)}") from None
                # The upper half holds the Unix mode; 0 where the archiver knew none.
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                    raise InputError(f"{where} is no plain file; refused")
                if info.flag_bits & 1:
                    raise InputError(f"{where} is encrypted; refused")
                chosen.append((info, path))
            _check_sum(archive, folder, (info.file_size for info, _ in chosen), limit)
            for info, path in chosen:
                with file.open(info) as source:
                    _write(source, path, info.file_size, where=f"{archive}: {info.filename}")
    except InputError:
        raise
    except Exception as error:  # zipfile raises many kinds over damaged and exotic archives
        raise InputError(f"{archive} is no zip archive that can be read: {error}") from None


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {quote(member.linkname)}"
    return "a sparse file" if member.issparse() else "a device or a pipe"


def _check_sum(archive: Path, folder: Path, sizes: Iterable[int], limit: int) -> None:
    size = sum(sizes)
    if size > limit:
        raise InputError(
            f"{archive} unpacks to {size:,} bytes, more than the {limit:,} that it may; refused"
        )
    free = shutil.disk_usage(archive.parent if not folder.exists() else folder).free
    if size > free:
        raise InputError(
            f"{folder} has {size_text(free)} free, and {archive.name} unpacks to "
            f"{size_text(size)}; make room and run again"
        )


def _write(source, path: Path, size: int, *, where: str) -> None:
    """Copy ``size`` bytes to a new file, which then takes its name; no more is ever written."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(handle, "wb") as file:
            written = 0
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                if written > size:
                    raise InputError(f"{where} holds more than the {size:,} bytes it announces")
                file.write(chunk)
        if written < size:
            raise InputError(f"{where} is cut off at {written:,} of {size:,} bytes")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); make room or check the folder, "
            "and run again"
        ) from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
