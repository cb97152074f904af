"""Put the tables of several ablations, and single runs, into one table of this folder.

``python figures/collect.py voc_lt_proxy.csv runs/probe=proxy runs/tuned160=proxy``: each folder, or
a table in it, and after the equals sign the name of its data.
"""

import sys
from pathlib import Path

import pandas as pd

from ltml import Run
from ltml.core.files import write_csv
from ltml.training.ablation import tabulate


def main(out: str, *parts: str) -> None:
    """Read each folder's ablation.csv, or the run that it holds; write one table."""
    tables = []
    for part in parts:
        folder, _, name = part.partition("=")
        path = Path(folder)
        path = path / "ablation.csv" if path.is_dir() else path
        table = pd.read_csv(path) if path.exists() else tabulate([Run.load(folder)])
        tables.append(table.assign(data=name) if name else table)
    rows = pd.concat(tables, ignore_index=True)
    write_csv(Path(__file__).resolve().parent / out, rows)
    print(f"{out}: {len(rows)} rows")


if __name__ == "__main__":
    main(*sys.argv[1:])
