"""Made-up runs in folders, as training writes them, with any number of classes and epochs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd


def write_run(
    folder, *, classes=80, epochs=8, steps=50, seed=0, evaluated=True, strength=0.0, **recipe
) -> Path:
    """Write a run whose classes have long-tailed counts, and gradients that shrink with them."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    rng, C = np.random.default_rng(seed), classes
    names = [f"class {c:04d}" if C > 100 else f"animal {c}" for c in range(C)]
    counts = np.maximum(1, np.geomspace(1000, 1.4, C) * rng.uniform(0.8, 1.2, C)).astype(int)
    group = np.where(counts >= 100, "head", np.where(counts >= 20, "medium", "tail"))
    tables, metrics = [], []
    for e in range(1, epochs + 1):
        learned = 1 - np.exp(-e / epochs * 4 * (counts / counts.max()) ** 0.2)
        pos = counts ** (1 - strength) * (1 - learned) * rng.uniform(0.8, 1.2, C) / 100 + 1e-4
        neg = counts ** (1 - strength) * (1 - learned) * rng.uniform(0.8, 1.2, C) / 120 + 1e-4
        ap = np.clip(learned * rng.uniform(0.7, 1.0, C), 0, 1)
        ap = ap if evaluated or e == epochs else np.full(C, np.nan)
        columns = {"epoch": e, "class": names, "group": group, "count": counts, "ap": ap}
        columns |= {"grad_pos": pos, "grad_neg": neg, "grad_weight": pos + neg}
        tables.append(pd.DataFrame(columns))
        means = {g: ap[group == g].mean() for g in ("head", "medium", "tail")}
        row = {"epoch": e, "step": e * steps, "train_loss": 1 / e, "mAP": ap.mean()}
        metrics.append(row | means)
    per_class = pd.concat(tables)
    per_class.to_csv(folder / "per_class.csv", index=False, float_format="%.7g")
    pd.DataFrame(metrics).to_csv(folder / "metrics.csv", index=False, float_format="%.7g")
    parts = {"data": "made-up", "sampler": "uniform", "loss": "bce", "diversity": "off"}
    data = {"name": "made-up", "train_images": 5000, "test_images": 2000}
    data |= {"labels_per_image": 2.0, "class_names": names, "test_counts": [20] * C}
    config = {"schema": 2, "recipe": parts | {"seed": seed} | recipe, "data": data}
    total = per_class.groupby("class")[["grad_pos", "grad_neg"]].sum().sum(axis=1)
    last = {name: float(metrics[-1][name]) for name in ("mAP", "head", "medium", "tail")}
    summary = last | {"gradient_imbalance": float(total.max() / total.min()), "seconds": 12.5}
    summary |= {"steps": epochs * steps, "torch": "2.6", "device": "cpu"}
    summary["classes_without_positives"] = []
    for name, content in (("config", config), ("summary", summary)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    return folder
