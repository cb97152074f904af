"""Measure everything and write results.json and results.md; ``make bench`` runs it.

Each number is a median, and each ratio is of medians taken in turns within one run.
"""

import argparse
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


def _steps() -> list[dict]:
    return [row for d in DEVICES for row in steps.measure(d)]


def _demo(results: dict) -> list[dict]:
    # The demo trains the small ConvNet, on the last of the devices.
    small = [row for row in results["training step"] if row["network"].startswith("small")][-1]
    return demo(small["bare loop, ms"] / 1000)


# part -> what measures it, given the rows of earlier parts, and the module that holds its targets
PARTS = {
    "losses": (lambda _: [row for d in DEVICES for row in losses.measure(d)], losses),
    "training step": (lambda _: _steps(), steps),
    "group sampling": (lambda _: sampling.measure(), sampling),
    "loader": (lambda _: loading.measure(), loading),
    "reading": (lambda _: reading.measure(), reading),
    "labels, mostly unknown": (lambda _: labels.measure(), labels),
    "closed form": (lambda _: [row for d in DEVICES for row in probing.measure(d)], probing),
    **{
        f"images through {network}": (lambda _, network=network: passing.measure(network), passing)
        for network in passing.NETWORKS
    },
    "demo": (_demo, None),
}


def main() -> None:
    """Measure, write after each part, and say which targets were met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    wanted = parser.parse_args().parts
    if not wanted:  # each in a process of its own, which holds nothing of the others
        for name in PARTS:
            subprocess.run([sys.executable, __file__, name], check=True)
        return
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r}; parts are {', '.join(PARTS)}")
    path = HERE / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in (name for name in PARTS if name in wanted):
        measure, module = PARTS[name]
        results[name] = measure(results)
        if module is not None:
            met = module.targets_met(results[name])
            results.setdefault("targets", {})[name] = [dict(target=t, met=m) for t, m in met]
        results.setdefault("machines", {})[name] = _machine()
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = _page(results)
    (HERE / "results.md").write_text(text, encoding="utf-8")
    print(text)


def _machine() -> dict:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "gpu": torch.cuda.get_device_name() if "cuda" in DEVICES else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _page(results: dict) -> str:
    lines = ["# Benchmarks", "", "Written by `make bench`: medians, taken in turns within one run"]
    lines[-1] += " of a part; `python benchmarks/run.py 'loader'` measures that part anew."
    for name in (name for name in PARTS if name in results):
        lines += ["", f"## {name[0].upper()}{name[1:]}", ""]
        machine = results["machines"][name].items()
        lines += [", ".join(f"{k}: {v}" for k, v in machine if v is not None), ""]
        lines += [_markdown(pd.DataFrame(results[name]))]
        targets = results["targets"].get(name, [])
        lines += [""] if targets else []
        lines += [f"- {'met' if t['met'] else 'MISSED'}: {t['target']}" for t in targets]
    return "\n".join(lines) + "\n"


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
