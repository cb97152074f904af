"""A server on the loopback that serves small files, well or badly."""

import contextlib
import re
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """A file, and how it is served.

    Each of ``statuses`` answers one request before the file is served; ``cut`` ends the connection
    after as many bytes, ``cuts`` times; ``pause`` seconds pass after every 1000 bytes.
    """

    body: bytes
    ranges: bool = True
    etag: str | None = '"1"'
    statuses: tuple[int, ...] = ()
    cut: int | None = None
    cuts: int = 10**9
    pause: float = 0.0
    hang: bool = False
    length: int | None = None  # announced, whatever the body's
    announce: bool = True
    wrong_range: bool = False
    redirect: str | None = None


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.path, wanted))
        file = server.files.get(self.path)
        if file is None:
            return self.send_error(404)
        if file.statuses:
            status, *rest = file.statuses
            file.statuses = tuple(rest)
            return self.send_error(status)
        if file.redirect:
            self.send_response(302)
            self.send_header("Location", file.redirect)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        start = 0
        current = self.headers.get("If-Range") in (None, file.etag)
        if wanted and file.ranges and current:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            if start >= len(file.body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(file.body)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            said = start + 1 if file.wrong_range else start
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {said}-{len(file.body) - 1}/{len(file.body)}")
        else:
            self.send_response(200)
        body = file.body[start:]
        if file.announce:
            length = len(body) if file.length is None else file.length
            self.send_header("Content-Length", str(length))
        if file.etag:
            self.send_header("ETag", file.etag)
        self.end_headers()
        if file.cut is not None and file.cuts > 0:
            file.cuts -= 1
            body = body[: file.cut]
        with contextlib.suppress(OSError):  # the client may have gone
            for i in range(0, len(body), 1000) if file.pause else ():
                self.wfile.write(body[i : i + 1000])
                time.sleep(file.pause)
            if not file.pause:
                self.wfile.write(body)
            if file.hang:
                server.released.wait(20)
        return None

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """``url`` and the paths under it in ``files``; ``requests`` are (path, Range) as they came."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass


@contextlib.contextmanager
def serving():
    """Run a server for the time of a with block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
