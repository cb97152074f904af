"""Draw the figures of this folder from the records beside it; `make figures` runs it.

The records are small copies of runs (no weights). Commands that make them anew stand in README.md.
"""

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")

from ltml import Run, plots

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Write every figure as SVG and 200-dpi PNG."""
    baseline, method = (Run.load(HERE / "records" / name) for name in ("baseline", "method"))
    figures = {
        "label_counts": plots.label_counts(baseline),
        "gradient_baseline": plots.gradient_magnitudes(baseline),
        "gradient_method": plots.gradient_magnitudes(method),
        "gradient_heatmap": plots.gradient_heatmap(baseline),
        "class_ap": plots.class_ap([baseline, method]),
        "group_map": plots.group_bars([baseline, method]),
    }
    table = HERE / "ablation.csv"
    if table.is_file():
        figures["ablation"] = plots.ablation(pd.read_csv(table))
    for name, (figure, _) in figures.items():
        plots.save(figure, HERE / name)


if __name__ == "__main__":
    main()
