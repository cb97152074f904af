"""A record of features, made up."""

import numpy as np
import pandas as pd

from ltml import FeatureRecord
from ltml.runs.features import SplitFeatures


def make_record(name="made", seed=0, spread=0.3, classes=10):
    """A direction for each class, and a spread about it; columns in no order of count."""
    counts = [5, 400, 12, 30, 200, 7, 60, 150, 25, 9]
    counts, C = (counts * (classes // 10 + 1))[:classes], classes
    names = list("jacdbihgfe") if C == 10 else [f"class number {c}" for c in range(C)]
    groups = np.select(
        [np.array(counts) >= 100, np.array(counts) >= 20], ["head", "medium"], "tail"
    )
    classes = pd.DataFrame({"class": names, "group": groups, "count": counts})
    random, splits = np.random.default_rng(seed), {}
    for split in ("train", "test"):
        n = np.minimum(counts, 12) if split == "train" else np.full(C, 8)
        cls = np.repeat(np.arange(C), n)
        M = len(cls)
        labels = np.zeros((M, C), np.uint8)
        labels[np.arange(M), cls] = 1
        labels[np.arange(M), random.integers(C, size=M)] = 1  # and another one
        splits[split] = SplitFeatures(
            features=(np.eye(C, C + 4)[cls] + spread * random.standard_normal((M, C + 4))).astype(
                "f2"
            ),
            cls=cls.astype(np.int32),
            image=np.arange(M),
            score=random.standard_normal(M).astype(np.float32),
            neighbors=np.stack([random.permutation(M)[:6] for _ in range(M)]),
            similarity=-np.sort(-random.random((M, 6)), axis=1).astype(np.float16),
            index=np.arange(M),
            labels=labels,
            thumbnails=random.integers(0, 255, (M, 12, 12, 3), dtype=np.uint8),
        )
    return FeatureRecord(name, classes, splits)
