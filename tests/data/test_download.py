import contextlib
import hashlib
import os
import resource
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from serving import Served, serving

from ltml.data import _http, download
from ltml.data.download import Download, fetch, inside
from ltml.errors import InputError

BODY = bytes(range(256)) * 1000  # 256,000 bytes
MD5 = "md5:" + hashlib.md5(BODY, usedforsecurity=False).hexdigest()
SHA = "sha256:" + hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as server:
        yield server


def get(server, root, *, options=(), **about):
    """Fetch BODY from /a to a.bin."""
    item = Download(**(dict(url=f"{server.url}/a", path="a.bin") | about))
    fetch([item], root, **dict(backoff=0.01, progress=False, timeout=5) | dict(options))
    assert not list(root.rglob("*.part"))
    return (root / "a.bin").read_bytes()


@pytest.mark.parametrize("about", [{}, {"size": len(BODY)}, {"digest": MD5}, {"digest": SHA}])
def test_whole(server, tmp_path, about):
    server.files["/a"] = Served(BODY)
    assert get(server, tmp_path, **about) == BODY
    get(server, tmp_path, **about)
    assert len(server.requests) == 1  # what is there is not fetched again


def test_no_length_and_slow(server, tmp_path):
    server.files["/a"] = Served(BODY, announce=False)
    assert get(server, tmp_path) == BODY
    server.files["/b"] = Served(BODY[:5000], pause=0.05)
    fetch([Download(f"{server.url}/b", "b")], tmp_path, timeout=0.2, progress=False)
    assert (tmp_path / "b").read_bytes() == BODY[:5000]


@pytest.mark.parametrize("about", [{}, {"digest": SHA}, {"digest": SHA, "size": len(BODY)}])
def test_cut_off_is_resumed(server, tmp_path, about):
    server.files["/a"] = Served(BODY, cut=70_000)
    assert get(server, tmp_path, **about) == BODY
    assert [wanted for _, wanted in server.requests] == [
        None, "bytes=70000-", "bytes=140000-", "bytes=210000-"
    ]  # fmt: skip


def test_resumed_by_the_next_process(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(BODY[:100_000])
    server.files["/a"] = Served(BODY)
    assert get(server, tmp_path, digest=SHA) == BODY
    assert server.requests == [("/a", "bytes=100000-")]


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_part_that_is_whole(server, tmp_path, size):
    (tmp_path / "a.bin.part").write_bytes(BODY)
    server.files["/a"] = Served(BODY)
    assert get(server, tmp_path, digest=SHA, size=size) == BODY
    assert len(server.requests) == (size is None)  # answered by 416


@pytest.mark.parametrize("part", [b"x" * 100_000, b"x" * 300_000, b"x" * len(BODY)])
@pytest.mark.parametrize("size", [None, len(BODY)])
def test_a_part_of_another_file_is_thrown_away(server, tmp_path, part, size):
    (tmp_path / "a.bin.part").write_bytes(part)
    server.files["/a"] = Served(BODY)
    assert get(server, tmp_path, digest=SHA, size=size) == BODY


def test_without_a_digest_nothing_older_is_trusted(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100)
    server.files["/a"] = Served(BODY)
    assert get(server, tmp_path) == BODY
    assert server.requests == [("/a", None)]


def test_a_new_version_while_it_was_fetched(server, tmp_path):
    server.files["/a"] = Served(b"x" * len(BODY), cut=70_000)

    attempt = _http.OneFile._attempt

    def then_replace(self, file):
        try:
            attempt(self, file)
        finally:
            server.files["/a"] = Served(BODY, etag='"2"')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_http.OneFile, "_attempt", then_replace)
        assert get(server, tmp_path) == BODY  # not half of each
    assert server.requests == [("/a", None), ("/a", "bytes=70000-")]


@pytest.mark.parametrize(
    "bad", [dict(ranges=False), dict(wrong_range=True), dict(etag=None), dict(etag='W/"1"')]
)
def test_a_server_that_cannot_resume(server, tmp_path, bad):
    server.files["/a"] = Served(BODY, cut=70_000, cuts=2, **bad)
    assert get(server, tmp_path) == BODY


def test_a_server_that_always_cuts_off(server, tmp_path):
    server.files["/a"] = Served(BODY, cut=70_000, ranges=False)
    with pytest.raises(InputError, match=r"/a failed: .* cut off at 70,000 of 256,000 bytes; run"):
        get(server, tmp_path, options=dict(retries=3))
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [404, 403, 410, 401])
def test_refused(server, tmp_path, status):
    server.files["/a"] = Served(BODY, statuses=(status,) * 9)
    with pytest.raises(
        InputError, match=rf"/a cannot be had: the server answers {status} .*put it"
    ):
        get(server, tmp_path)
    assert len(server.requests) == 1
    assert not list(tmp_path.iterdir())


def test_busy_then_well(server, tmp_path):
    server.files["/a"] = Served(BODY, statuses=(503, 429, 500))
    assert get(server, tmp_path) == BODY
    server.files["/b"] = Served(BODY, statuses=(503,) * 99)
    with pytest.raises(InputError, match="/b failed: the server answers 503"):
        fetch([Download(f"{server.url}/b", "b")], tmp_path, backoff=0.01, progress=False)


@pytest.mark.parametrize("digest", [MD5, SHA])
def test_wrong_checksum(server, tmp_path, digest):
    server.files["/a"] = Served(BODY[::-1])
    with pytest.raises(
        InputError, match=rf"/a sent has the .*, not {digest.split(':')[1]}; try again"
    ):
        get(server, tmp_path, digest=digest)
    assert not list(tmp_path.iterdir())  # nor is it resumed by the next call


@pytest.mark.parametrize("length", [100_000, 300_000])
def test_lengths_that_lie(server, tmp_path, length):
    server.files["/a"] = Served(BODY, length=length)
    with pytest.raises(InputError, match=f"has {length:,} bytes by its server, but 256,000 were"):
        get(server, tmp_path, size=len(BODY))
    assert not list(tmp_path.iterdir())
    if length < len(BODY):
        with pytest.raises(InputError, match="/a sent has the sha256"):
            get(server, tmp_path, digest=SHA)
        assert not list(tmp_path.iterdir())
    else:  # asked for the rest, the server owns up that there is none
        assert get(server, tmp_path) == BODY


def test_more_than_agreed(server, tmp_path):
    server.files["/a"] = Served(BODY, announce=False)
    with pytest.raises(InputError, match="sends more than the 1,000 bytes"):
        get(server, tmp_path, limit=1000)
    with pytest.raises(InputError, match="sends more than the 1,000 bytes"):
        get(server, tmp_path, size=1000)
    server.files["/a"] = Served(BODY)
    with pytest.raises(InputError, match="has 256,000 bytes; at most 1,000 are taken"):
        get(server, tmp_path, limit=1000)
    assert not (tmp_path / "a.bin").exists()


def test_verified(server, tmp_path):
    def verify(path):
        if path.read_bytes() != BODY[:10]:
            raise InputError("no bytes of ours")

    server.files["/a"] = Served(b"<html>please log in</html>")
    with pytest.raises(InputError, match="/a sent is not what it should be: no bytes of ours; try"):
        get(server, tmp_path, verify=verify)
    assert not list(tmp_path.iterdir())
    server.files["/a"] = Served(BODY[:10])
    assert get(server, tmp_path, verify=verify) == BODY[:10]


def test_a_silent_server(server, tmp_path):
    server.files["/a"] = Served(BODY, cut=1000, hang=True)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"/a failed: nothing came for 0.2 s"):
        get(server, tmp_path, options=dict(timeout=0.2, retries=1))
    assert time.monotonic() - start < 10


def test_no_network(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    items = [Download(f"https://data.example/{i}", f"sub/{i}") for i in range(50)]
    with pytest.raises(InputError, match=r"data.example cannot be reached \(Name or .*: is there"):
        fetch(items, tmp_path, backoff=0.01, progress=False)
    assert not list(tmp_path.rglob("*.part"))


def test_nobody_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a"
    with pytest.raises(InputError, match=r"cannot be reached .*refused"):
        fetch([Download(url, "a")], tmp_path, retries=1, backoff=0.01, progress=False)


def test_redirects(server, tmp_path):
    server.files |= {"/a": Served(b"", redirect="/c/d"), "/c/d": Served(BODY, cut=200_000)}
    assert get(server, tmp_path, digest=SHA) == BODY
    for there in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"):
        server.files["/b"] = Served(b"", redirect=there)
        with pytest.raises(InputError, match=r"redirects to .*, which is not followed|302"):
            fetch([Download(f"{server.url}/b", "b")], tmp_path, backoff=0.01, progress=False)
    server.files["/e"] = Served(b"", redirect="/e")
    with pytest.raises(InputError, match="answers 302"):
        fetch([Download(f"{server.url}/e", "e")], tmp_path, backoff=0.01, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin"]


def test_never_from_https_to_http():
    request = _http.urllib.request.Request("https://a.example/x")
    with pytest.raises(InputError, match="not followed"):
        _http._Redirects().redirect_request(request, None, 302, "", {}, "http://a.example/x")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h/a", "a.bin", "https://", "data:,x"])
def test_only_http(tmp_path, url):
    with pytest.raises(InputError, match="is no address of a file; give http"):
        fetch([Download(url, "a")], tmp_path, progress=False)


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "", "a\\x", "a\nx"])
def test_only_inside_the_root(server, tmp_path, path):
    server.files["/a"] = Served(BODY)
    with pytest.raises(InputError, match=r"download: "):
        fetch([Download(f"{server.url}/a", path)], tmp_path / "root", progress=False)
    assert not list(tmp_path.iterdir())


def test_no_way_out_by_links(server, tmp_path):
    server.files["/a"] = Served(BODY)
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "sub").symlink_to(outside)
    with pytest.raises(InputError, match=r"leads out of .* by a symbolic link"):
        inside(root, "sub/new/a")
    with pytest.raises(InputError, match="leads out of"):
        get(server, root, path="sub/a")
    (root / "a.bin.part").symlink_to(outside / "a")
    with pytest.raises(InputError, match=r"a.bin.part cannot be written"):
        get(server, root)
    (root / "a.bin").symlink_to(outside / "a")
    with pytest.raises(InputError, match="is there already, but is not a file; delete it"):
        get(server, root)
    assert not list(outside.iterdir())


def test_what_is_there_but_wrong(server, tmp_path):
    server.files["/a"] = Served(BODY)
    (tmp_path / "a.bin").write_bytes(b"mine")
    for about, said in [
        (dict(size=len(BODY)), "has 4 bytes, not 256,000"),
        (dict(digest=SHA), "has the sha256"),
    ]:
        with pytest.raises(InputError, match=f"is there already, but {said}.*; delete it"):
            get(server, tmp_path, **about)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert server.requests == []


def test_many_at_once(server, tmp_path):
    """40 answers of 50 ms by 8 connections take far less than one after the other."""
    for i in range(40):
        server.files[f"/{i}"] = Served(b"%d" % i, pause=0.05)
    items = [Download(f"{server.url}/{i}", f"d/{i}") for i in range(40)]
    start = time.monotonic()
    fetch(items, tmp_path, connections=8, progress=False)
    assert time.monotonic() - start < 1.5  # 2 s without any overhead
    assert {path.read_bytes() for path in (tmp_path / "d").iterdir()} == {
        b"%d" % i for i in range(40)
    }


def test_one_failure_does_not_stop_the_others(server, tmp_path):
    for i in range(10):
        server.files[f"/{i}"] = Served(b"x")
    del server.files["/3"], server.files["/7"]
    items = [Download(f"{server.url}/{i}", f"{i}") for i in range(10)]
    with pytest.raises(InputError, match=r"404.*\(2 files failed; this is the first\)"):
        fetch(items, tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 8


def test_many_failures_do(server, tmp_path):
    items = [Download(f"{server.url}/{i}", f"{i}") for i in range(1000)]
    with pytest.raises(InputError, match="10 files failed"):
        fetch(items, tmp_path, progress=False)
    assert len(server.requests) < 100


def test_disk(server, tmp_path, monkeypatch):
    server.files["/a"] = Served(BODY)
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(InputError, match=r"has 1 kB free, and 256 kB are to be fetched"):
            get(server, tmp_path / "new" / "folder", size=len(BODY))
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
            get(server, tmp_path)
        tmp_path.chmod(0o700)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written"):
        get(server, tmp_path, path="file/a")


def test_full_disk(server, tmp_path):
    """A limit on the size of files stands for a full disk."""
    server.files["/a"] = Served(BODY)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError, match=r"cannot be written \(File too large\); check"):
            fetch([Download(f"{server.url}/a", "a")], tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "a").exists()


def test_two_at_the_same_file(server, tmp_path):
    server.files["/a"] = Served(BODY, pause=0.01)
    first = threading.Thread(target=lambda: get(server, tmp_path))
    first.start()
    while not (tmp_path / "a.bin.part").exists():
        time.sleep(0.01)
    with pytest.raises(InputError, match="is being fetched by another process"):
        get(server, tmp_path)
    first.join()
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_stopped_by_hand(server, tmp_path, monkeypatch):
    """Ctrl-C does not wait for a silent server, and what came is kept for the next time."""
    server.files["/a"] = Served(BODY, cut=100_000, hang=True)

    def interrupted(queue):
        while not (part := tmp_path / "a.bin.part").exists() or part.stat().st_size < 90_000:
            time.sleep(0.01)
        raise KeyboardInterrupt

    class Queue(download.queue.SimpleQueue):
        def get(self, *args, **options):
            return interrupted(self)

    monkeypatch.setattr(download.queue, "SimpleQueue", Queue)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path, digest=SHA, options=dict(timeout=3))
    assert time.monotonic() - start < 8
    monkeypatch.undo()
    server.released.set()
    server.files["/a"] = Served(BODY)
    for _ in range(100):  # until the thread that was left alone lets go
        with contextlib.suppress(InputError):
            assert get(server, tmp_path, digest=SHA) == BODY
            break
        time.sleep(0.05)
    assert Path(tmp_path / "a.bin").read_bytes() == BODY


def test_progress(server, tmp_path, monkeypatch):
    shown = []

    class Bar(download.tqdm):
        def close(self):
            shown.append((self.n, self.total, self.unit))
            super().close()

    monkeypatch.setattr(download, "tqdm", Bar)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    server.files["/a"] = Served(BODY, cut=100_000, ranges=False, cuts=1)
    get(server, tmp_path, size=len(BODY), options=dict(progress=True))
    (tmp_path / "a.bin").unlink()
    get(server, tmp_path, options=dict(progress=True))
    assert set(shown) == {(len(BODY), len(BODY), "B"), (1, 1, "file")}


def test_connections(tmp_path):
    with pytest.raises(InputError, match="connections=0 is too few"):
        fetch([], tmp_path, connections=0)
    fetch([], tmp_path)
