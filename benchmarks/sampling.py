"""Group sampling: how long it takes to set up, what memory it needs, how fast it samples."""

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from timing import in_turns

# images, classes: as VOC-LT, as COCO-LT, and as large as LVIS and beyond
SIZES = [(1142, 20), (1909, 80), (100_000, 120), (100_000, 1203), (1_000_000, 1203)]


def long_tailed(images: int, classes: int):
    """Make up about three labels an image, class frequencies falling two hundredfold and more."""
    from ltml import LabelMatrix

    random = np.random.default_rng(0)
    share = np.exp(-np.linspace(0, math.log(200), classes))
    number = random.integers(1, 6, images)
    labels = random.choice(classes, number.sum(), p=share / share.sum())
    labels[:classes] = np.arange(classes)  # no class without an image
    lists = np.split(labels, np.cumsum(number)[:-1])
    return LabelMatrix.from_lists(lists, [f"class {c}" for c in range(classes)])


def one(images: int, classes: int) -> dict:
    """Measure one size in this process."""
    from ltml import GroupSampler

    labels = long_tailed(images, classes)
    began = time.perf_counter()
    sampler = GroupSampler(labels, batch_size=4096, num_batches=10**6, seed=0)
    setup = time.perf_counter() - began
    sampled, began = 0, time.perf_counter()
    for batch in sampler:
        sampled += len(batch)
        if time.perf_counter() - began > 2:
            break
    speed = sampled / (time.perf_counter() - began)
    peak = _peak_mebibytes()
    # What neither can beat: to read every label once, and to make one random number an image.
    indices = labels.matrix.indices
    count = in_turns({"": lambda: np.bincount(indices, minlength=classes)}, seconds=0.5)
    random = in_turns({"": lambda: torch.rand(2**16, dtype=torch.float64)}, seconds=0.5)
    return {
        "images": images,
        "classes": classes,
        "set up, s": setup,
        "times reading the labels once": setup / median(count[""]),
        "peak memory of the process, MiB": peak,
        "million images sampled a second": speed / 1e6,
        "of bare random numbers, %": 100 * speed * median(random[""]) / 2**16,
    }


def _peak_mebibytes() -> float:
    """Return the most memory this process has held, labels and Python with it."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with what the parent held
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def measure() -> list[dict]:
    """Return a row a size, each from a process of its own, whose memory is then known."""
    rows = []
    for images, classes in SIZES:
        command = [sys.executable, __file__, str(images), str(classes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
    few, many, large = rows[-3:]
    many["set-up grows as C to the"] = _exponent(few, many, "classes")
    large["set-up grows as N to the"] = _exponent(many, large, "images")
    return rows


def _exponent(small: dict, large: dict, of: str) -> float:
    seconds = large["set up, s"] / small["set up, s"]
    return math.log(seconds) / math.log(large[of] / small[of])


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    said = []
    for row in rows:
        memory = row["peak memory of the process, MiB"]
        size = f"{row['images']:,} x {row['classes']:,}"
        said.append((f"{size}: at most 2 GiB: {memory:.0f} MiB", memory <= 2048))
    return said


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]), int(sys.argv[2]))))
