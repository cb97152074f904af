"""Reading: a million image files indexed and found, and a table of ten million rows.

CPU seconds (user and system) and the most memory that a process of its own took. The files are
empty, made in memory where the system has a folder for that; the table has Open Images' columns.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

FILES, ROWS = 1_000_000, 10_000_000
_FIND = """
from ltml.data.finder import Finder
finder = Finder({folder!r})
print(len(finder.files))
"""
_FOUND = _FIND + "print(len(finder.find([f'{{i:016x}}' for i in range({files})])))\n"
_READ = """
from ltml.data.folder import read_label_csv
print(read_label_csv({path!r})[1])
"""
_MEASURE = """
import json, resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
scale = 2**20 if sys.platform != "darwin" else 2**30
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / scale]))
"""


def _run(code: str) -> tuple[float, float]:
    """CPU seconds and GiB of a process that runs the code."""
    command = [sys.executable, "-c", code + _MEASURE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, gib = json.loads(done.stdout.splitlines()[-1])
    return seconds, gib


def _folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def measure(files: int = FILES, rows: int = ROWS) -> list[dict]:
    out = []
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        for start in range(0, files, 10_000):
            part = Path(folder, f"images_{start // 10_000:03}")
            part.mkdir()
            for i in range(start, min(start + 10_000, files)):
                Path(part, f"{i:016x}.jpg").touch()
        for what, code in (("files indexed", _FIND), ("files indexed and found by id", _FOUND)):
            seconds, gib = _run(code.format(folder=folder, files=files))
            out.append({"what": what, "number": files, "CPU s": seconds, "GiB": gib})
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        path = Path(folder, "train.csv")
        with path.open("w") as file:
            file.write("ImageID,Source,LabelName,Confidence\n")
            for start in range(0, rows, 100_000):  # six rows an image, 601 classes
                lines = (
                    f"{i // 6:016x},verification,/m/0{(i % 6 * 97 + i // 6 % 97) % 601:04x},"
                    f"{(i + i // 6) % 2}\n"
                    for i in range(start, min(start + 100_000, rows))
                )
                file.write("".join(lines))
        seconds, gib = _run(_READ.format(path=str(path)))
        out.append(
            {"what": "rows of Open Images read", "number": rows, "CPU s": seconds, "GiB": gib}
        )
    return out


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    _, found, table = rows
    return [
        (
            f"a million files indexed and found in 30 CPU seconds and 1 GiB: "
            f"{found['CPU s']:.0f} s, {found['GiB']:.2f} GiB",
            found["CPU s"] < 30 and found["GiB"] < 1,
        ),
        (
            f"ten million rows in 60 CPU seconds and 4 GiB: {table['CPU s']:.0f} s, "
            f"{table['GiB']:.2f} GiB",
            table["CPU s"] < 60 and table["GiB"] < 4,
        ),
    ]


if __name__ == "__main__":
    for row in (rows := measure()):
        print(row)
    print(*targets_met(rows), sep="\n")
