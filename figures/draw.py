"""Draw the figures of this folder from the records beside it; `make figures` runs it.

The records are small copies of runs (no weights) and the tables of ablations. The commands that
make them anew stand in book/guide/results.md, whose tables, and README's, are written from them.
"""

from pathlib import Path

import budget
import claims
import matplotlib
import pandas as pd
from PIL import Image, ImageOps

matplotlib.use("Agg")

from ltml import Run, load, plots
from ltml.core.files import write_atomically, write_csv
from ltml.core.labels import GROUPS
from ltml.training import ablation

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE.parent / "book" / "guide" / "results.md"


def main() -> None:
    """Write every figure as SVG and 200-dpi PNG."""
    runs = [Run.load(HERE / "records" / name) for name in ("baseline", "method")]
    table, photos = (pd.read_csv(HERE / f"{name}.csv") for name in ("ablation", "voc_lt_proxy"))
    figures = {
        "label_counts": plots.label_counts(runs[0]),
        "gradient_before_after": plots.gradient_magnitudes(runs),
        "gradient_heatmap": plots.gradient_heatmap(runs),
        "group_balance": plots.group_balance(load("pictograms").train.labels),
        "class_ap": plots.class_ap(runs),
        "group_map": plots.group_bars(runs),
        "ablation": plots.ablation(table),
        "voc_lt_proxy": plots.ablation(
            photos[(photos.backbone == "tuned") & (photos["size"] == 160)]
        ),
    }
    figures["budget"] = budget.draw(pd.read_csv(budget.TABLE))
    for name, (figure, _) in figures.items():
        plots.save(figure, HERE / name, overwrite=True)
    darken(HERE / "gradient_before_after.png")
    rows = photo_rows(photos)
    _replace(RESULTS, "ablation", ablation.markdown(table))
    _replace(RESULTS, "all photos", rows)
    judged = claims.judge()
    write_csv(HERE / "claims.csv", judged)
    _replace(RESULTS, "claims", claims.markdown(judged))
    _replace(README, "photos", "\n".join(x for x in rows.splitlines() if "at 160 px" not in x))


def darken(path: Path) -> None:
    """Write a figure for dark pages beside it: lightness turned around, hues as they are."""
    hue, saturation, value = ImageOps.invert(Image.open(path).convert("RGB")).convert("HSV").split()
    hue = hue.point([(x + 128) % 256 for x in range(256)])
    value = value.point([13 + round(x * 242 / 255) for x in range(256)])  # no deeper than a page
    dark = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    dark.save(path.with_name(f"{path.stem}_dark.png"), optimize=True)


def photo_rows(table: pd.DataFrame) -> str:
    """Return the rows of the photo benchmark that say most, as a Markdown table."""
    found = ablation.summarise(table)
    frozen = found[found.backbone == "frozen"]
    tuned = found[(found.backbone == "tuned") & (found["size"] == 160)]
    trained = frozen[frozen.classifier == "own"]
    own, last = (tuned[tuned.classifier == name] for name in ("own", "interpolated"))
    attended = frozen[(frozen.classifier == "refit") & (frozen.diversity == "attention")]
    rows = {
        f"at 224 px: frozen, best of {len(trained)} trained heads": trained.sort_values(
            "val_mAP"
        ).iloc[-1],
        "at 224 px: frozen, closed form (`ltml probe`)": attended.iloc[0],
        "at 160 px: fine-tuned, uniform, BCE": _of(own, "uniform", "bce"),
        f"at 160 px: best of {len(own)} trained classifiers": own.sort_values("val_mAP").iloc[-1],
        "at 160 px: the plain one, half way back, re-fitted": _of(last, "uniform", "bce"),
        "at 160 px: late group sampling and DGB, half way back, re-fitted": _of(
            last, "group-late", "dgb"
        ),
    }
    large = found[(found.backbone == "tuned") & (found["size"] == 224)]
    own, last = (large[large.classifier == name] for name in ("own", "interpolated"))
    rows["at 224 px: fine-tuned, uniform, BCE"] = _of(own, "uniform", "bce")
    rows["at 224 px: the plain one, half way back, re-fitted"] = _of(last, "uniform", "bce")
    name = "at 224 px: late group sampling and DGB, half way back, re-fitted"
    rows[name] = _of(last, "group-late", "dgb")
    lines = ["| | mAP | head | medium | tail |", "|---|---:|---:|---:|---:|"]
    for name, row in rows.items():
        if "best of" in name:
            name += f": {row.sampler}, {row.loss}"
        cells = [_cell(row, measure) for measure in ("mAP", *GROUPS)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of(found: pd.DataFrame, sampler: str, loss: str) -> pd.Series:
    parts = (found.sampler == sampler) & (found.loss == loss) & (found.diversity == "off")
    return found[parts].iloc[0]


def _cell(row: pd.Series, measure: str) -> str:
    spread = f" ± {row[f'{measure}_std']:.1f}" if row.seeds > 1 else ""
    return f"{row[measure]:.1f}{spread}"


def _replace(page: Path, name: str, block: str) -> None:
    """Write a table between its two marks in a page."""
    text = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by make figures -->", f"<!-- end of {name} -->"
    text = f"{text.split(begin)[0]}{begin}\n{block}\n{end}{text.split(end)[1]}"
    write_atomically(page, lambda part: part.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()
