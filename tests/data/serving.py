"""A server on the loopback that serves small files, well or badly."""

import contextlib
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """A file, and how it is served.

    Each of ``statuses`` answers one request before the file is served; ``cut`` ends the connection
    after as many bytes, ``cuts`` times; ``redirect`` sends elsewhere.
    """

    body: bytes
    statuses: tuple[int, ...] = ()
    cut: int | None = None
    cuts: int = 10**9
    redirect: str | None = None


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        file = self.server.files.get(self.path)
        if file is None:
            return self.send_error(404)
        if file.statuses:
            status, *rest = file.statuses
            file.statuses = tuple(rest)
            return self.send_error(status)
        self.send_response(302 if file.redirect else 200)
        if file.redirect:
            self.send_header("Location", file.redirect)
        self.send_header("Content-Length", str(len(file.body)))
        self.end_headers()
        body = file.body
        if file.cut is not None and file.cuts > 0:
            file.cuts -= 1
            body = body[: file.cut]
        with contextlib.suppress(OSError):  # the client may have gone
            self.wfile.write(body)
        return None

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """``url`` and the paths under it in ``files``; ``requests`` are paths as they came."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[str] = []

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
        server.shutdown()
        thread.join()
        server.server_close()
