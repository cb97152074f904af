"""Measure everything and write results.json and results.md; ``make bench`` runs it.

Each number is a median, and each ratio is of medians taken in turns within one run.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import labels
import loading
import losses
import pandas as pd
import passing
import probing
import reading
import sampling
import steps
import torch

HERE = Path(__file__).resolve().parent
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def demo(bare: float) -> list[dict]:
    """The demo from nothing to its figures, beside its steps at ``bare`` seconds each."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "ltml.cli", "demo", "--out", folder]
        subprocess.run(command, check=True, capture_output=True)
        taken = time.perf_counter() - began
        runs = [json.loads(path.read_text()) for path in Path(folder).glob("*/summary.json")]
    return [
        {
            "demo, end to end, s": taken,
            "in its trainings, s": sum(run["seconds"] for run in runs),
            "their steps in a bare loop, s": bare * sum(run["steps"] for run in runs),
        }
    ]


def main() -> None:
    """Measure, write, and say which targets were met."""
    trained = [row for d in DEVICES for row in steps.measure(d)]
    # The demo trains the small ConvNet, on the last of the devices.
    small = [row for row in trained if row["network"].startswith("small")][-1]
    parts = {
        "losses": ([row for d in DEVICES for row in losses.measure(d)], losses),
        "training step": (trained, steps),
        "group sampling": (sampling.measure(), sampling),
        "loader": (loading.measure(), loading),
        "reading": (reading.measure(), reading),
        "labels, mostly unknown": (labels.measure(), labels),
        "closed form": ([row for d in DEVICES for row in probing.measure(d)], probing),
        "images through a network": (passing.measure(), passing),
        "demo": (demo(small["bare loop, ms"] / 1000), None),
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if "cuda" in DEVICES else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    met = {name: module.targets_met(rows) for name, (rows, module) in parts.items() if module}
    results = {"machine": machine, **{name: rows for name, (rows, _) in parts.items()}}
    results["targets"] = {name: [dict(target=t, met=m) for t, m in v] for name, v in met.items()}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    lines = ["# Benchmarks", "", "Written by `make bench`: medians, taken in turns within one run."]
    lines += ["", ", ".join(f"{k}: {v}" for k, v in machine.items() if v is not None), ""]
    for name, (rows, _) in parts.items():
        lines += [f"## {name[0].upper()}{name[1:]}", "", _markdown(pd.DataFrame(rows)), ""]
        lines += [f"- {'met' if ok else 'MISSED'}: {text}" for text, ok in met.get(name, [])]
        lines += [""] if name in met else []
    text = "\n".join(lines)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def _markdown(table: pd.DataFrame) -> str:
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    head = [list(table.columns), ["---"] * len(table.columns)]
    return "\n".join("| " + " | ".join(row) + " |" for row in head + rows)


def _cell(value) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


if __name__ == "__main__":
    main()
