"""Draw the figures of this folder from the records beside it; `make figures` runs it.

The records are small copies of runs (no weights) and the table of an ablation. The commands that
make them anew stand in README.md, whose table is written from the same records.
"""

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")

from ltml import Run, ablation, load, plots
from ltml.files import write_atomically

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- ablation: written by make figures -->", "<!-- end of ablation -->"


def main() -> None:
    """Write every figure as SVG and 200-dpi PNG."""
    runs = [Run.load(HERE / "records" / name) for name in ("baseline", "method")]
    figures = {
        "label_counts": plots.label_counts(runs[0]),
        "gradient_before_after": plots.gradient_magnitudes(runs),
        "gradient_heatmap": plots.gradient_heatmap(runs),
        "group_balance": plots.group_balance(load("pictograms").train.labels),
        "class_ap": plots.class_ap(runs),
        "group_map": plots.group_bars(runs),
    }
    table = HERE / "ablation.csv"
    if table.is_file():
        figures["ablation"] = plots.ablation(pd.read_csv(table))
    for name, (figure, _) in figures.items():
        plots.save(figure, HERE / name)
    if table.is_file():
        readme = HERE.parent / "README.md"
        before, after = readme.read_text(encoding="utf-8").split(BEGIN)[0], END
        after += readme.read_text(encoding="utf-8").split(END)[1]
        block = f"{BEGIN}\n{ablation.markdown(pd.read_csv(table))}\n"
        write_atomically(readme, lambda part: part.write_text(before + block + after, "utf-8"))


if __name__ == "__main__":
    main()
