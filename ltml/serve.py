"""Serve the explorers in the browser, to people who would rather look than write code."""

import secrets
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ltml.errors import InputError

__all__ = ["serve"]


def serve(
    runs: Sequence[str | Path],
    *,
    ip: str = "127.0.0.1",
    port: int | None = None,
    token: bool = True,
    open_browser: bool = True,
) -> None:
    """Serve a page of explorers with Voila until interrupted.

    Args:
        runs: folders of runs, or folders that hold them.
        ip: address to listen on; the default is reached from this machine only.
        port: default: 8866, or a free one if that is taken.
        token: let in only who has the address that is printed.
        open_browser: open that address.

    Raises:
        InputError: if Voila is missing, a folder is, or the port cannot be had.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise InputError(
            "explore needs Voila, which is missing here; install it with: pip install 'ltml[lab]'"
        ) from error
    folders = [Path(path) for path in runs]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"runs {str(folder)!r} is not a folder; give folders of runs, such as runs/demo"
            )
    port = _free_port(ip, port)
    secret = secrets.token_hex(24) if token else ""
    with tempfile.TemporaryDirectory(prefix="ltml-") as temporary:
        notebook = Path(temporary) / "explore.ipynb"
        _write_notebook(notebook, [str(folder.resolve()) for folder in folders])
        address = f"http://{'localhost' if ip == '127.0.0.1' else ip}:{port}/"
        print(f"explorers: {address}{f'?token={secret}' if secret else ''}", flush=True)
        print("stop with Ctrl-C", flush=True)
        # In this process, so that the token is in no list of processes.
        Voila.launch_instance(
            argv=[
                str(notebook),
                f"--Voila.ip={ip}",
                f"--port={port}",
                "--Voila.port_retries=0",
                f"--token={secret}",
                f"--Voila.open_browser={open_browser}",
                "--Voila.log_level=ERROR",
                "--VoilaConfiguration.show_tracebacks=True",
            ]
        )


def _write_notebook(path: Path, runs: list[str]) -> None:
    import nbformat

    cells = [
        nbformat.v4.new_markdown_cell("# ltml: explore runs"),
        nbformat.v4.new_code_cell(f"from ltml.widgets import explore\n\nexplore({runs!r})"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, path)


def _free_port(ip: str, port: int | None) -> int:
    for wanted in (8866, 0) if port is None else (port,):
        with socket.socket() as probe:
            try:
                probe.bind((ip, wanted))
                return probe.getsockname()[1]
            except (OSError, OverflowError) as error:
                reason = error
    raise InputError(f"port {port} of {ip} cannot be had ({reason}); give another, or none")
