"""Take one file over http(s): what is missing of it, again if need be, and no more than agreed."""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ltml.errors import InputError
from ltml.files import quote

__all__ = ["Download", "HopelessError", "OneFile", "make_opener", "problem_of"]

_CHUNK = 2**18
_PROGRESS = 2**16  # bytes beyond what was ever reached that make an attempt worth another
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better a moment later
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Download:
    """A file to fetch.

    Args:
        url: its address, http or https.
        path: where it goes, relative to the folder of the downloads.
        size: its bytes; a server that tells or sends another number is refused. None: unknown.
        digest: ``"md5:..."`` or ``"sha256:..."``. Only a file with a digest is resumed by a later
            process; without one, what an earlier process left may be of another version.
        limit: most bytes to take where the size is unknown.
        verify: raises :class:`InputError` unless the file at the given path is what it should be.
    """

    url: str
    path: str
    size: int | None = None
    digest: str | None = None
    limit: int = 64 * 2**20
    verify: Callable[[Path], None] | None = None


class PassingError(Exception):
    """A failure that may pass, and whether the server could not even be reached."""

    def __init__(self, reason: str, *, unreachable: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.unreachable, self.wait = unreachable, wait


class HopelessError(InputError):
    """A failure that every other file would meet too."""


class StoppedError(Exception):
    """The downloads were given up while this one was under way."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) only, and never from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise InputError(
                f"{req.full_url} redirects to {quote(newurl)}, which is not followed; "
                "give another --mirror"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def make_opener() -> urllib.request.OpenerDirector:
    # Not build_opener, which also opens file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


def problem_of(path: Path, size: int | None = None, digest: str | None = None) -> str | None:
    """What is wrong with a file that should have this size and digest; None if nothing is."""
    if path.is_symlink() or not path.is_file():
        return "is not a file"
    found = path.stat().st_size
    if size is not None and found != size:
        return f"has {found:,} bytes, not {size:,}"
    if found == 0:
        return "is empty"
    if digest is not None:
        kind, _, value = digest.partition(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.new(kind, usedforsecurity=False)
            ).hexdigest()
        if found != value:
            return f"has the {kind} {found}, not {value}"
    return None


class OneFile:
    """One file under way."""

    def __init__(self, item, path, opener, timeout, stop, advance):
        self.item, self.path, self.opener, self.timeout = item, path, opener, timeout
        self.stop, self.advance = stop, advance
        self.shown = 0  # bytes that the bar counts
        self.validator = None  # the server's name for the version that was begun
        self.ranges = True  # whether to ask for the rest only
        self.received = False  # whether this process took the part from its first byte

    def run(self, retries: int, backoff: float) -> None:
        """Fetch, check and rename, with as many attempts as it is worth."""
        try:
            self._run(self.path.with_name(self.path.name + ".part"), retries, backoff)
        except OSError as error:  # the network's are dealt with where they arise
            raise _disk(self.path, error) from None

    def _run(self, part: Path, retries: int, backoff: float) -> None:
        with _locked(part) as file:
            try:
                if self.item.digest is None:
                    file.truncate(0)
                self.received = file.seek(0, os.SEEK_END) == 0
                wrong = self._attempts(file, part, retries, backoff)
                if wrong and not self.received:  # what an earlier process left may be to blame
                    file.truncate(0)
                    self.validator = None
                    wrong = self._attempts(file, part, retries, backoff)
                if wrong:
                    file.truncate(0)
                    raise InputError(
                        f"what {self.item.url} sent {wrong}; try again later, or give a --mirror"
                    )
                if self.stop.is_set():
                    raise StoppedError
                part.replace(self.path)
            finally:
                if file.seek(0, os.SEEK_END) == 0:
                    part.unlink(missing_ok=True)

    def _attempts(self, file, part: Path, retries: int, backoff: float) -> str | None:
        """Fetch the whole file; returns what is wrong with it, if anything is."""
        failures, best = 0, file.seek(0, os.SEEK_END)
        while True:
            try:
                self._attempt(file)
                break
            except PassingError as error:
                reached = file.seek(0, os.SEEK_END)
                # Counted from the furthest ever, or a server that cuts off at the same place each
                # time and cannot resume would be asked for ever.
                failures = 1 if reached >= best + _PROGRESS else failures + 1
                best = max(best, reached)
                if failures > retries:
                    raise self._given_up(error) from None
                if self.stop.wait(max(error.wait, backoff * 2 ** (failures - 1))):
                    raise StoppedError from None
        file.flush()
        wrong = problem_of(part, self.item.size, self.item.digest)
        if wrong is None and self.item.verify is not None:
            try:
                self.item.verify(part)
            except InputError as error:
                return f"is not what it should be: {error}"
        return wrong

    def _given_up(self, error: PassingError) -> InputError:
        if error.unreachable:
            host = urlsplit(self.item.url).netloc
            return HopelessError(
                f"{host} cannot be reached ({error}): is there a network? Behind a proxy, set "
                f"https_proxy; else fetch {self.item.url} elsewhere and put it at {self.path}"
            )
        return InputError(
            f"{self.item.url} failed: {error}; run again to go on, or give a --mirror"
        )

    def _attempt(self, file) -> None:
        """Ask once for what is missing of the file, and append it."""
        item, have = self.item, file.seek(0, os.SEEK_END)
        if (have and not self.ranges) or have > (item.size or have):
            file.truncate(0)
            have = 0
        self._show(have)
        if have and have == item.size:
            return
        request = urllib.request.Request(item.url, headers={"User-Agent": "ltml"})
        request.add_header("Accept-Encoding", "identity")
        if have:
            request.add_header("Range", f"bytes={have}-")
            if self.validator:
                request.add_header("If-Range", self.validator)
        try:
            with self.opener.open(request, timeout=self.timeout) as answer:
                self._take(answer, file, have)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, file, have)
        except urllib.error.URLError as error:
            raise self._unreached(error.reason) from None
        except http.client.HTTPException as error:
            raise PassingError(f"the connection broke ({type(error).__name__})") from None
        except TimeoutError:
            raise PassingError(f"nothing came for {self.timeout:g} s") from None
        except OSError as error:
            raise PassingError(f"the connection broke ({error.strerror or error})") from None

    def _unreached(self, reason) -> Exception:
        text = getattr(reason, "strerror", None) or str(reason)
        if "CERTIFICATE_VERIFY_FAILED" in str(reason):
            return HopelessError(
                f"{urlsplit(self.item.url).netloc} has no certificate that this machine trusts "
                f"({text}); a proxy may be in between: set SSL_CERT_FILE to its certificate"
            )
        return PassingError(text, unreachable=True)

    def _refused(self, error: urllib.error.HTTPError, file, have: int) -> None:
        if error.code == 416 and have:  # nothing beyond what is here: the digest will tell, or
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if total != str(have):
                self.ranges = False
                raise PassingError("the server's file is shorter than what came before")
            return
        said = f"the server answers {error.code} {error.reason}"
        if error.code in _PASSING:
            wait = error.headers.get("Retry-After") or ""
            raise PassingError(said, wait=min(float(wait), 60.0) if wait.isdecimal() else 0.0)
        raise InputError(
            f"{self.item.url} cannot be had: {said}; give a --mirror, or fetch the file elsewhere "
            f"and put it at {self.path}"
        )

    def _take(self, answer, file, have: int) -> None:
        """Write what the server sends; raise unless all of it came."""
        item, headers = self.item, answer.headers
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if answer.status == 206:
            place = _RANGE.fullmatch(headers.get("Content-Range") or "")
            if place is None or int(place[1]) != have:
                self.ranges = False
                raise PassingError("the server sends another part than it was asked for")
            total = None if place[2] == "*" else int(place[2])
        else:  # the whole file: the server resumes nothing, or has a new version
            file.truncate(0)
            have, self.received = 0, True
        self.validator = headers.get("ETag") or headers.get("Last-Modified")
        if self.validator and self.validator.startswith("W/"):
            self.validator = None
        if not (item.digest or self.validator):
            self.ranges = False  # nothing could tell that the rest is of the same version
        if item.size is not None and total not in (None, item.size):
            raise InputError(
                f"{item.url} has {total:,} bytes by its server, but {item.size:,} were published; "
                "a proxy may be in between, or the file has changed: give a --mirror"
            )
        most = item.size if item.size is not None else item.limit
        if total is not None and total > most:
            raise InputError(f"{item.url} has {total:,} bytes; at most {most:,} are taken")
        self._show(have)
        file.seek(have)
        while chunk := answer.read1(_CHUNK):
            if self.stop.is_set():
                raise StoppedError
            have += len(chunk)
            if have > most:
                raise InputError(f"{item.url} sends more than the {most:,} bytes that are taken")
            try:
                file.write(chunk)
            except OSError as error:  # the disk's, not the connection's
                raise _disk(self.path, error) from None
            self._show(have)
        expected = item.size if item.size is not None else total
        if expected is not None and have < expected:
            raise PassingError(f"the connection was cut off at {have:,} of {expected:,} bytes")

    def _show(self, have: int) -> None:
        self.advance(have - self.shown)
        self.shown = have


def _disk(path: Path, error: OSError) -> InputError:
    hint = "make room and run again" if error.errno == errno.ENOSPC else "check the folder"
    return HopelessError(f"{path} cannot be written ({error.strerror}); {hint}")


@contextlib.contextmanager
def _locked(part: Path):
    """Open a part for this process alone; a symbolic link in its place is not followed."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _disk(part, error) from None
    with os.fdopen(handle, "r+b") as file:
        busy = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = True
        except OSError:  # a file system without locks
            pass
        # No longer the file of that name: another process has just finished with it.
        if busy or not part.exists() or not os.path.samestat(os.fstat(handle), part.stat()):
            raise InputError(f"{part} is being fetched by another process; wait for it")
        yield file
