"""Find labels that were made wrong on purpose: the closed form beside cleanlab.

    python figures/suspects.py ../shared/data        # writes figures/suspects.csv

Of the training labels of two sets of photos 15 % of the present ones are dropped and 1 % of the
absent ones added, with three seeds. Both methods see the same features. cleanlab needs the
probabilities of a model that has not seen the image: logistic regression, five folds, at
scikit-learn's default strength and at that of least error out of fold, as the closed form chooses
its own. Finished rows are not measured again. Needs timm and cleanlab.
"""

import argparse
import resource
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import KFold

from ltml import LabelMatrix, Recipe
from ltml.data.single import load_table
from ltml.training.suspects import _features, left_out, suspicion

HERE = Path(__file__).resolve().parent
DROPPED, ADDED, SEEDS = 0.15, 0.01, 3
KEY = ["data", "seed", "method"]


def cpu() -> float:
    """Processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def closed_form(features: torch.Tensor, given: np.ndarray) -> np.ndarray:
    """Suspicion ``(N, C)`` as ltml ranks it."""
    return suspicion(given, left_out(features, torch.from_numpy(given)))


def confident_learning(features: torch.Tensor, given: np.ndarray, cs=(1.0,)) -> np.ndarray:
    """Suspicion ``(N, C)`` by cleanlab; of several ``cs``, the one of least error out of fold."""
    from cleanlab.multilabel_classification import rank

    x = torch.nn.functional.normalize(features.mean(1), dim=1).numpy()
    x = (x - x.mean(0)) / x.std(0).clip(1e-6)
    least, best = np.inf, None
    for strength in cs:
        p = np.zeros(given.shape)
        for train, test in KFold(5, shuffle=True, random_state=0).split(x):
            for c in range(given.shape[1]):
                y = given[train, c]
                if len(np.unique(y)) == 1:
                    p[test, c] = y[0]
                    continue
                model = LogisticRegression(C=strength, max_iter=1000).fit(x[train], y)
                p[test, c] = model.predict_proba(x[test])[:, 1]
        error = log_loss(given.ravel(), p.ravel())
        if error < least:
            least, best = error, p
    lists = [np.flatnonzero(row).tolist() for row in given]
    return 1 - rank.get_label_quality_scores_per_class(lists, best)


METHODS = {
    "closed form": closed_form,
    "cleanlab, C=1": confident_learning,
    "cleanlab, C chosen": partial(confident_learning, cs=10.0 ** np.arange(-5, 2)),
}


def numbers(wrong: np.ndarray, suspect: np.ndarray) -> tuple[float, float, int]:
    """AUROC, precision at the number of errors, and that number."""
    n = int(wrong.sum())
    first = np.argsort(-suspect, kind="stable")[:n]
    return roc_auc_score(wrong, suspect) if 0 < n < len(wrong) else np.nan, wrong[first].mean(), n


def measure(features: torch.Tensor, labels: LabelMatrix, seed: int, method: str) -> dict:
    """Make labels wrong, have a method rank them, and say how well it does."""
    true, rng = labels.dense().numpy() > 0, np.random.default_rng(seed)
    draw = rng.random(true.shape)
    wrong = np.where(true, draw < DROPPED, draw < ADDED)
    given = (true ^ wrong).astype(np.float32)
    began = cpu()
    suspect = METHODS[method](features, given)
    row = {"cpu_seconds": cpu() - began}
    tail = np.isin(labels.group_of_class(), ["tail"])  # by the true counts
    for kind, value in (("missing", 0), ("false", 1)):
        for name, columns in (("", np.ones(len(tail), bool)), ("tail_", tail)):
            mask = (given == value) & columns
            found = numbers(wrong[mask], suspect[mask])
            row |= {f"{name}{kind}_{k}": v for k, v in zip(("auroc", "p", "n"), found, strict=True)}
    return row


def main() -> None:
    """Measure what is missing, and print the means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder of the photos and weights")
    parser.add_argument("--cache", type=Path, help="folder to keep features in")
    args = parser.parse_args()
    out = HERE / "suspects.csv"
    rows = pd.read_csv(out).to_dict("records") if out.is_file() else []
    for name in ("voc_lt_proxy", "fashion"):
        todo = [(seed, method) for seed in range(SEEDS) for method in METHODS]
        done = {tuple(row[k] for k in KEY) for row in rows}
        todo = [each for each in todo if (name, *each) not in done]
        if not todo:
            continue
        split = load_table(args.shared / name / "train.csv", separator=" ")
        weights = args.shared / "weights/efficientnet_lite0.safetensors"
        recipe = Recipe(backbone="timm/tf_efficientnet_lite0", weights=str(weights), image_size=224)
        kept = args.cache and args.cache / f"{name}.pt"
        if kept and kept.is_file():
            features = torch.load(kept)
        else:
            features = _features(split, recipe, progress=True)
            if kept:
                torch.save(features, kept)
        for seed, method in todo:
            row = dict(zip(KEY, (name, seed, method), strict=True))
            row |= measure(features, split.labels, seed, method)
            rows.append(row)
            pd.DataFrame(rows).round(4).to_csv(out, index=False)
    means = pd.DataFrame(rows).drop(columns="seed").groupby(["data", "method"], sort=False).mean()
    print(means.round(3).T.to_string())


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
