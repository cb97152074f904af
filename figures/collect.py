"""Put the tables of several ablations, and single runs, into one: figures/voc_lt_proxy.csv.

``python figures/collect.py runs/frozen runs/tuned runs/probe``
"""

import sys
from pathlib import Path

import pandas as pd

from ltml import Run
from ltml.ablation import tabulate
from ltml.files import write_csv

OUT = Path(__file__).resolve().parent / "voc_lt_proxy.csv"


def main(folders: list[str]) -> None:
    """Read each folder's ablation.csv, or the run that it holds; write one table."""
    tables = []
    for folder in map(Path, folders):
        table = folder / "ablation.csv"
        tables.append(pd.read_csv(table) if table.exists() else tabulate([Run.load(folder)]))
    rows = pd.concat(tables, ignore_index=True).assign(data="VOC-LT proxy")
    write_csv(OUT, rows)
    print(f"{OUT}: {len(rows)} rows")


if __name__ == "__main__":
    main(sys.argv[1:])
