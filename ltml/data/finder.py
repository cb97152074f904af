"""Find the image files that a table means, wherever they lie and however it calls them."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.data.image import IMAGE_SUFFIXES
from ltml.data.kinds import kind_of

# What a name may end with besides: of the originals that images were made from.
_ENDINGS = IMAGE_SUFFIXES | {".dcm", ".dicom"}
_ALIKE = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}


class Finder:
    """Find images below a folder by path, by the longest tail of a path, or by stem.

    A name may be a path from the root or from the table's own folder, an absolute path of this or
    of another machine, an address, a bare file name, or an id without extension. The longest tail
    that a file's path has in common with it decides, then the extension, then the table's own
    folder, then a folder that names the split (``test/``, or ``Testing/`` for ``test``); where two
    files still fit, nothing is guessed. The folder is read once, when the first name is not simply
    a path of a file.

    Args:
        root: folder of the images; hidden files and folders below it are passed over.
        pattern: path of the image called ``{}``, from the root, such as ``"train/{}_green.png"``;
            ``{split}`` stands for the name of the split. Default: the name itself.

    Raises:
        InputError: if the pattern has no ``{}``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "photos").mkdir()
        ...     for name in "78":
        ...         Path(folder, f"photos/{name}.jpg").touch()
        ...     finder = Finder(folder)
        ...     found = finder.find(["7", r"C:\\mine\\photos\\8.JPG"])
        >>> [path.name for path in found], finder.where(found)
        (['7.jpg', '8.jpg'], 'photos/')
    """

    def __init__(self, root: str | Path, *, pattern: str | None = None):
        self.root, self.pattern = Path(root), pattern
        if pattern is not None and "{}" not in pattern:
            raise InputError(
                f"the image pattern {quote(pattern)} has no {{}}, where the name goes; give one "
                f"such as {quote('train/{}.jpg')}"
            )

    @cached_property
    def _index(self) -> tuple[list[str], dict[str, int | list[int]]]:
        """Paths below the root, and their positions by stem in lower case."""
        files: list[str] = []
        stems: dict[str, int | list[int]] = {}
        stack, seen = [("", os.fspath(self.root))], set()
        while stack:
            prefix, folder = stack.pop()
            below = []
            try:
                entries = os.scandir(folder)
            except OSError:  # a folder that may not be read holds nothing for us
                continue
            with entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == "." or name == "__MACOSX":
                        continue
                    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a million times
                    if suffix.lower() not in IMAGE_SUFFIXES:
                        try:
                            if not entry.is_dir():
                                continue
                            if entry.is_symlink():  # which may lead back up
                                real = os.path.realpath(entry.path)
                                if real in seen or self._inside(real, folder):
                                    continue
                                seen.add(real)
                        except OSError:
                            continue
                        below.append((f"{prefix}{name}/", entry.path))
                        continue
                    key, number = stem.casefold(), len(files)
                    files.append(prefix + name)
                    before = stems.setdefault(key, number)
                    if before.__class__ is list:
                        before.append(number)
                    elif before != number:
                        stems[key] = [before, number]
            stack += sorted(below, reverse=True)
        return files, stems

    @cached_property
    def _by_number(self) -> dict[int, list[int]]:
        """Positions of the files that are called by a number alone."""
        found: dict[int, list[int]] = {}
        for stem, at in self._index[1].items():
            if stem.isdecimal() and len(stem) < 300:
                found.setdefault(int(stem), []).extend(at if isinstance(at, list) else [at])
        return found

    @staticmethod
    def _inside(real: str, folder: str) -> bool:
        """Whether a folder is a link's target, or lies below it: a circle."""
        here = os.path.realpath(folder)
        return here == real or here.startswith(real.rstrip(os.sep) + os.sep)

    @property
    def files(self) -> list[str]:
        """Paths of all images below the root, from the root."""
        return self._index[0]

    def fits(self, name: str, *, near: Path | None = None, split: str | None = None) -> bool:
        """Whether any file may be meant by a name."""
        return bool(self._exact(name, near, split) or self._candidates(name, near, split))

    def find(
        self,
        names: Sequence[str],
        *,
        near: str | Path | None = None,
        split: str | None = None,
        place: Callable[[int], str] | None = None,
    ) -> list[Path]:
        """Return the file of every name.

        Args:
            names: names of the images, as written.
            near: the table's own folder, whose files are preferred.
            split: name of the split, for the pattern, and for folders that name its kind.
            place: name of a name's row in messages, such as ``"train.csv, line 3"``.

        Raises:
            InputError: saying what is there, if a name fits no file; both files, if it fits two;
                and both names, if two fit one file.
        """
        near = None if near is None else Path(near)
        place = place or (lambda row: f"name {row}")
        found: list[Path] = []
        missing: list[int] = []
        doubtful: list[tuple[int, list[str]]] = []
        for row, name in enumerate(names):
            path = self._exact(name, near, split)
            if path is None:
                best = self._candidates(name, near, split)
                if len(best) == 1:
                    path = self.root / best[0]
                elif best:
                    doubtful.append((row, best))
                else:
                    missing.append(row)
            found.append(path)
        if missing:
            raise InputError(self._say_missing(names, missing, place, near, split))
        if doubtful:
            raise InputError(self._say_doubtful(names, doubtful, place, split))
        first: dict[str, int] = {}
        for row, path in enumerate(found):
            before = first.setdefault(os.fspath(path), row)
            if before != row and _norm(names[before]) != _norm(names[row]):
                raise InputError(
                    f"{place(row)}: image {quote(names[row])} and {quote(names[before])} "
                    f"({place(before)}) are both found at {quote(self._from_root(path))}; write "
                    "their paths from the root"
                )
        return found

    def where(self, paths: Iterable[Path]) -> str:
        """Name the folders of files in a few words."""
        folders = sorted({os.path.dirname(self._from_root(path)) for path in paths}, key=_natural)  # noqa: PTH120
        named = [f"{folder}/" if folder else "the root" for folder in folders]
        if len(named) > 3:
            common = os.path.commonpath(folders) if folders[0] else ""
            if common:
                return f"{common}/ ({len(named):,} folders)"
            return f"{named[0]} to {named[-1]} ({len(named):,} folders)"
        return " and ".join([", ".join(named[:-1])] * (len(named) > 1) + named[-1:])

    def holds(self) -> str:
        """Say what images there are, a few folders of them."""
        counts: dict[str, list] = {}
        for file in self.files:
            folder, _, name = file.rpartition("/")
            count = counts.setdefault(folder, [0, name])
            count[0] += 1
        if not counts:
            return f"{self.root} holds no image at all; give the folder that does as root"
        most = sorted(counts.items(), key=lambda item: -item[1][0])
        said = [
            f"{folder + '/' if folder else 'the root'} holds {n:,} "
            f"{'images such as' if n > 1 else 'image,'} {name}"
            for folder, (n, name) in most[:3]
        ]
        rest = sum(n for _, (n, _) in most[3:])
        return "; ".join(said) + (f"; {rest:,} more lie in other folders" if rest else "")

    def _from_root(self, path: Path) -> str:
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return path.as_posix()

    def _named(self, name: str, split: str | None) -> list[str]:
        """Return the paths that a name may stand for: itself, or what the pattern makes of it."""
        if self.pattern is None:
            return [name]
        pattern = self.pattern.replace("{split}", split or "")
        if _stem(pattern)[1]:  # which brings the extension
            name = _stem(name)[0]
        last = (_parts(name) or [name])[-1]
        return [pattern.replace("{}", each) for each in dict.fromkeys([name, last])]

    def _exact(self, name: str, near: Path | None, split: str | None) -> Path | None:
        """Return the file at a path from the table's folder, from the root, or absolute."""
        if not name:
            return None
        folders = [self.root] if near is None or self.pattern else [near, self.root]
        for path in self._named(name, split):
            for folder in folders:
                whole = os.path.join(folder, path)  # noqa: PTH118 - a million times
                if os.path.isfile(whole):  # noqa: PTH113 - Path.is_file raises on too long a name
                    return Path(whole)
        return None

    def _candidates(self, name: str, near: Path | None, split: str | None) -> list[str]:
        """Return the files that fit a name best, all equally well."""
        parts = _parts(self._named(name, split)[-1])
        if not parts:
            return []
        files, stems = self._index
        stem, suffix = _stem(parts[-1])
        numbers = stems.get(stem.casefold(), ())
        stem = stem.removesuffix(".0") if numbers == () else stem  # a number beside missing ones
        if numbers == () and stem.isdecimal():  # 12 for 0012: what spreadsheets make of ids
            numbers = stems.get(stem, ())
        if numbers == () and stem.isdecimal():
            numbers = self._by_number.get(int(stem[:300]), ())
        numbers = numbers if isinstance(numbers, list) else [numbers] if numbers != () else []
        if len(numbers) < 2:
            return [files[i] for i in numbers]
        home = "" if near is None else self._from_root(near)
        home = "" if home in (".", "") else f"{home}/"
        best, most = [], ()
        for number in numbers:
            file = files[number]
            *folders, last = file.split("/")
            ending = os.path.splitext(last)[1].lower()  # noqa: PTH122
            tail = 0
            for ours, theirs in zip(reversed(folders), reversed(parts[:-1]), strict=False):
                if ours.casefold() != theirs.casefold():
                    break
                tail += 1
            same = not suffix or _ALIKE.get(ending, ending) == _ALIKE.get(suffix, suffix)
            score = (tail, same, last == parts[-1], bool(home) and file.startswith(home))
            # A path that agrees to the root says more than one that stops before it.
            if score > most:
                best, most = [file], score
            elif score == most:
                best.append(file)
        if len(best) > 1 and split:
            kind = kind_of(split)
            own = [
                file
                for file in best
                if any(f == split or (kind and kind_of(f) == kind) for f in file.split("/")[:-1])
            ]
            best = own or best
        return best

    def _say_missing(self, names, missing, place, near, split) -> str:
        row = missing[0]
        said = f"{place(row)}: image {quote(names[row])} is missing"
        if missing[1:]:
            said += f" (and {len(missing) - 1:,} more)" if len(missing) < len(names) else ""
        if len(missing) == len(names) > 1:
            said += f", as are all {len(names):,}"
        stem = _stem((_parts(names[row]) or [""])[-1])[0]
        longer = []
        if stem and self.pattern is None:
            part = re.compile(rf"(?<![0-9a-zA-Z]){re.escape(stem)}(?!\d)")
            longer = [f for f in self.files if stem in f and part.search(f.rpartition("/")[2])]
        shapes = self._shapes(longer, stem, split)
        if shapes:
            return f"{said}, but there is {quote(longer[0])}; {_choose(shapes)}"
        return f"{said}: {self.holds()}; correct the names, add the files, or drop the rows"

    def _say_doubtful(self, names, doubtful, place, split) -> str:
        row, best = doubtful[0]
        stem = _stem(_parts(names[row])[-1])[0]
        both = " or ".join(quote(file) for file in best[:3])
        more = f" (and {len(doubtful) - 1:,} more names fit several files)" if doubtful[1:] else ""
        said = f"{place(row)}: image {quote(names[row])} may be {both}{more}"
        shapes = self._shapes(best, stem, split)
        return f"{said}; {_choose(shapes) if len(shapes) == len(best) else 'write its path'}"

    @staticmethod
    def _shapes(files: list[str], stem: str, split: str | None) -> list[str]:
        """The patterns by which a name is each file; a split's own folder is said as that."""
        apart = len({file.rpartition("/")[0] for file in files}) > 1
        found = {}
        for file in files:
            *folders, last = file.split("/")
            if apart and split:
                folders = ["{split}" if name == split else name for name in folders]
            if stem in last:
                found["/".join([*folders, last.replace(stem, "{}", 1)])] = True
        return sorted(found)


def _choose(patterns: list[str]) -> str:
    """Ask for one of the patterns, each of which answers as it stands."""
    said = " or ".join(f"--image-pattern {quote(pattern)}" for pattern in patterns[:6])
    return f"say which is meant by {said} (in Python image_pattern=)"


def _stem(name: str) -> tuple[str, str]:
    """Split off an image's extension, in lower case; other dots are part of the name."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122
    suffix = suffix.lower()
    return (stem, suffix) if suffix in _ENDINGS else (name, "")


def _parts(name: str) -> list[str]:
    """Split a path of any machine, or an address, into folders and the last name."""
    if "://" in name[:10]:
        split = urlsplit(name)
        query = re.search(r"(?:^|&)d=([^&]+)", split.query)  # Label Studio's local files
        name = unquote(query.group(1) if query else split.path)
    elif name.startswith("/data/local-files/?d="):
        name = unquote(name.partition("?d=")[2])
    name = name.replace("\\", "/")
    return [part for part in name.split("/") if part not in ("", ".", "..") and part[-1] != ":"]


def _norm(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/"))


def _natural(name: str) -> list:
    """Order images_2 before images_10."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]
