"""How good the ranking is, and how diverse the features: per class, and over head, medium, tail."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ltml.errors import InputError

__all__ = [
    "DIVERSITY",
    "average_precision",
    "calibration",
    "classification",
    "cosine_distance",
    "effective_rank",
    "f1_thresholds",
    "feature_diversity",
    "group_map",
    "vendi_score",
]


def average_precision(scores: Tensor, targets: Tensor) -> np.ndarray:
    r"""Compute each class's step-wise average precision, scikit-learn's definition.

    .. math:: AP_c = \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores in descending order. A class without a positive has no AP: it is NaN
    here, so that means leave it out.

    Args:
        scores: ``(N, C)`` logits or probabilities; only their order within a class matters.
        targets: ``(N, C)`` of 0 and 1.

    Returns:
        ``(C,)`` float64 in [0, 1], NaN for classes without a positive.

    Raises:
        InputError: if the shapes disagree or a score is NaN.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
        >>> average_precision(scores, torch.tensor([[1, 0], [0, 0], [1, 0]])).round(4)
        array([0.8333,    nan])
    """
    if scores.shape != targets.shape or scores.ndim != 2:
        raise InputError(
            f"scores {tuple(scores.shape)} and targets {tuple(targets.shape)} differ; "
            "give both as (images, classes)"
        )
    if scores.isnan().any():
        row, column = scores.isnan().nonzero()[0].tolist()
        raise InputError(
            f"scores hold NaN at image {row}, class {column}; the model has diverged: "
            "lower the learning rate"
        )
    scores, targets = scores.detach().cpu(), targets.detach().cpu() > 0
    order = scores.argsort(dim=0, descending=True, stable=True)
    ranked, hit = scores.gather(0, order), targets.gather(0, order).double()
    found = hit.cumsum(0)  # (N, C) positives among the k first
    precision = found / torch.arange(1, len(scores) + 1, dtype=torch.float64)[:, None]
    # Images of one score enter together: each takes the precision at the last of them.
    last = torch.ones_like(targets)
    last[:-1] = ranked[1:] != ranked[:-1]
    index = torch.arange(len(scores))[:, None].expand_as(order)
    end = torch.where(last, index, len(scores)).flip(0).cummin(0).values.flip(0)
    total = found[-1] if len(scores) else torch.zeros(scores.shape[1], dtype=torch.float64)
    ap = (hit * precision.gather(0, end)).sum(0) / total
    return ap.numpy()


def group_map(ap: np.ndarray, groups: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Average the per-class AP over all classes and over each group, absent classes left out.

    Args:
        ap: ``(C,)`` average precisions, NaN where a class has none.
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        ``{"mAP": ..., "head": ..., "medium": ..., "tail": ...}``; NaN for a group without a class
        that has positives.

    Example:
        >>> groups = {"head": np.array([0]), "tail": np.array([1, 2])}
        >>> group_map(np.array([0.8, 0.4, np.nan]), groups)
        {'mAP': 0.6000000000000001, 'head': 0.8, 'tail': 0.4}
    """

    def mean(values: np.ndarray) -> float:
        present = values[~np.isnan(values)]
        return float(present.mean()) if present.size else float("nan")

    return {"mAP": mean(ap), **{name: mean(ap[classes]) for name, classes in groups.items()}}


def f1_thresholds(probabilities: Tensor, targets: Tensor) -> Tensor:
    r"""Find each class's threshold of largest :math:`F_1 = 2TP / (2TP + FP + FN)`.

    Choose it on a validation split. An image is said to hold a class where its probability is at
    least the threshold, which lies half way between two images' probabilities.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1.

    Returns:
        ``(C,)`` float64; NaN for classes without a positive.

    Example:
        >>> p, y = torch.tensor([0.9, 0.4, 0.3, 0.1]), torch.tensor([1, 1, 0, 0])
        >>> f1_thresholds(p[:, None], y[:, None])
        tensor([0.3500], dtype=torch.float64)
    """
    p, y = probabilities.detach().cpu().double(), targets.detach().cpu().double()
    ranked, order = p.sort(dim=0, descending=True)
    hits, positives = y.gather(0, order).cumsum(0), y.sum(0)
    said = torch.arange(1, len(p) + 1, dtype=torch.float64)[:, None]
    f1 = 2 * hits / (said + positives)
    following = torch.cat([ranked[1:], torch.zeros_like(ranked[:1])])
    f1[ranked == following] = -1  # images of one probability are said together
    f1[-1] = 2 * positives / (len(p) + positives)
    best = f1.argmax(0, keepdim=True)
    middle = (ranked.gather(0, best) + following.gather(0, best)).squeeze(0) / 2
    return torch.where(positives > 0, middle, math.nan)


def classification(
    probabilities: Tensor,
    targets: Tensor,
    *,
    thresholds: float | Tensor = 0.5,
    groups: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    r"""Compute precision, recall and F1, per class and overall, as multi-label work reports them.

    .. math:: CF_1 = \frac{2\, CP \cdot CR}{CP + CR}, \qquad OF_1 = \frac{2\, OP \cdot OR}{OP + OR}

    with CP and CR the means over classes of precision and recall, and OP and OR those of all
    decisions together; macro F1 is the mean of the classes' own F1. Classes without a positive are
    left out; the precision of a class that is never said counts as 0.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1.
        thresholds: of all classes, or ``(C,)`` one each, as of :func:`f1_thresholds`.
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        a row for all classes (``"all"``) and each group: CP, CR, CF1, OP, OR, OF1, macro_F1.

    References:
        | CNN-RNN: A Unified Framework for Multi-label Image Classification (Wang et al., CVPR 2016)
        | https://arxiv.org/abs/1604.04573

    Example:
        >>> p, y = torch.tensor([[0.9, 0.2], [0.6, 0.7]]), torch.tensor([[1, 0], [0, 1]])
        >>> classification(p, y).round(3)
               CP   CR    CF1     OP   OR  OF1  macro_F1
        all  0.75  1.0  0.857  0.667  1.0  0.8     0.833
    """
    y = targets.detach().cpu().bool()
    said = probabilities.detach().cpu() >= torch.as_tensor(thresholds)
    hits, said, positives = ((said & y).sum(0), said.sum(0), y.sum(0))
    rows = {}
    for name, classes in {"all": np.arange(y.shape[1]), **(groups or {})}.items():
        tp, s, n = (x[classes][positives[classes] > 0].double() for x in (hits, said, positives))
        precision, recall = tp / s.clamp(min=1), tp / n
        cp, cr, f1 = (x.mean().item() for x in (precision, recall, 2 * tp / (s + n)))
        op, orr = (tp.sum() / s.sum().clamp(min=1)).item(), (tp.sum() / n.sum()).item()
        rows[name] = {"CP": cp, "CR": cr, "CF1": _harmonic(cp, cr)}
        rows[name] |= {"OP": op, "OR": orr, "OF1": _harmonic(op, orr), "macro_F1": f1}
    return pd.DataFrame.from_dict(rows, orient="index")


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def calibration(
    probabilities: Tensor,
    targets: Tensor,
    *,
    bins: int = 15,
    groups: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    r"""Compare predicted probabilities with observed frequencies, in bins of equal width.

    The expected calibration error of a group is
    :math:`\sum_b \frac{n_b}{n} |\text{predicted}_b - \text{observed}_b|`, the column ``error``.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1.
        bins: how many, over [0, 1].
        groups: group name -> class indices.

    Returns:
        a row per group (and ``"all"``) and bin that is not empty: group, bin, predicted, observed,
        count, error.

    References:
        | Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini et al., AAAI 2015)
    """
    p, y = (np.asarray(x.detach().cpu(), dtype=float) for x in (probabilities, targets))
    tables = []
    for name, classes in {"all": np.arange(p.shape[1]), **(groups or {})}.items():
        of_group, held = p[:, classes].ravel(), y[:, classes].ravel()
        if not of_group.size:
            continue
        table = pd.DataFrame({"predicted": of_group, "observed": held})
        table["bin"] = np.minimum((of_group * bins).astype(int), bins - 1)
        found = table.groupby("bin").agg(
            predicted=("predicted", "mean"), observed=("observed", "mean"), count=("bin", "size")
        )
        gap = (found.predicted - found.observed).abs()
        found["error"] = (gap * found["count"]).sum() / found["count"].sum()
        tables.append(found.reset_index().assign(group=name))
    columns = ["group", "bin", "predicted", "observed", "count", "error"]
    return pd.concat(tables, ignore_index=True)[columns]


def vendi_score(features: Tensor) -> Tensor:
    r"""Count how many different samples there are, in effect.

    .. math:: \operatorname{VS} = \exp\Bigl(-\sum_i \lambda_i \log \lambda_i\Bigr)

    with :math:`\lambda_i` the eigenvalues of :math:`K / n`, and :math:`K` the cosine similarities:
    1 if all samples point the same way, ``n`` if all are orthogonal.

    Args:
        features: ``(..., n, D)``, a row a sample.

    Returns:
        ``(...)`` scores in [1, n].

    References:
        | The Vendi Score: A Diversity Evaluation Metric for Machine Learning (Friedman & Dieng,
          TMLR 2023), https://arxiv.org/abs/2210.02410

    Example:
        >>> vendi_score(torch.eye(4)), vendi_score(torch.ones(4, 3))
        (tensor(4.), tensor(1.0000))
    """
    x = torch.nn.functional.normalize(features, dim=-1)
    return _exp_entropy(torch.linalg.eigvalsh(x @ x.mT / x.shape[-2]))


def effective_rank(features: Tensor) -> Tensor:
    r"""Count how many directions the samples spread over, in effect.

    .. math:: \operatorname{erank} = \exp\Bigl(-\sum_i p_i \log p_i\Bigr), \qquad
              p_i = \sigma_i \big/ \textstyle\sum_j \sigma_j

    with :math:`\sigma_i` the singular values of the features about their mean.

    Args:
        features: ``(..., n, D)``, a row a sample.

    Returns:
        ``(...)`` ranks in [1, min(n - 1, D)]; 1 for samples that do not differ at all.

    References:
        | The Effective Rank: A Measure of Effective Dimensionality (Roy & Vetterli, EUSIPCO 2007)

    Example:
        >>> x = torch.tensor([[1., 0.], [-1., 0.], [0., 1.], [0., -1.]])
        >>> effective_rank(x).round(decimals=4)
        tensor(2.)
    """
    centred = features - features.mean(-2, keepdim=True)
    sigma = torch.linalg.svdvals(centred)
    total = sigma.sum(-1, keepdim=True)
    return _exp_entropy(sigma / total.clamp(min=torch.finfo(sigma.dtype).tiny))


def cosine_distance(features: Tensor) -> Tensor:
    r"""Average the cosine distance :math:`1 - \cos(x_i, x_j)` of all pairs of different samples.

    Args:
        features: ``(..., n, D)``, a row a sample, ``n >= 2``.

    Returns:
        ``(...)`` distances in [0, 2].

    Example:
        >>> cosine_distance(torch.eye(3))
        tensor(1.)
    """
    x, n = torch.nn.functional.normalize(features, dim=-1), features.shape[-2]
    # |sum x|^2 = n + sum over pairs: no (n, n) matrix is needed
    pairs = x.sum(-2).square().sum(-1) - x.square().sum((-1, -2))
    return 1 - pairs / (n * (n - 1))


def _exp_entropy(p: Tensor) -> Tensor:
    p = p.clamp(min=0)
    return torch.special.entr(p).sum(-1).exp()


DIVERSITY: dict[str, Callable[[Tensor], Tensor]] = {
    "vendi": vendi_score,
    "effective-rank": effective_rank,
    "cosine-distance": cosine_distance,
}


def feature_diversity(
    features: Tensor,
    targets: Tensor,
    *,
    measure: str = "vendi",
    size: int | None = None,
    repeats: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Measure the diversity of each class's positives at one sample size, by rarefaction.

    More samples are more diverse whatever they are, so a class of five images must not be compared
    with one of a thousand as they stand. Each class is measured on random subsets of ``size`` of
    its positives. The standard error is the delete-d jackknife's (Shao & Wu, 1989): with variance
    :math:`v` over subsets of :math:`m` of :math:`n` samples, :math:`\sqrt{v\, m / (n - m)}`.

    Args:
        features: ``(N, D)`` shared by all classes, or ``(N, C, D)`` of each class.
        targets: ``(N, C)`` of 0 and 1.
        measure: a name of :data:`DIVERSITY`.
        size: samples :math:`m` a subset, at least 2. Default: one fewer than the smallest class of
            at least three has, and 50 at most.
        repeats: subsets of each class.
        seed: of the subsets.

    Returns:
        a row a class: ``count`` (positives), ``size``, ``value`` and ``error``; NaN where a class
        has fewer samples than ``size``, or (the error alone) exactly as many.

    Raises:
        InputError: if shapes disagree or an option is out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> targets = torch.tensor([[1, 0]] * 40 + [[0, 1]] * 10)
        >>> features = torch.randn(50, 8) * torch.tensor([1.0, 0.1])[targets.argmax(1), None] + 1
        >>> feature_diversity(features, targets).round(2)
           count  size  value  error
        0     40     9   3.34   0.21
        1     10     9   1.07   0.02
    """
    if measure not in DIVERSITY:
        raise InputError(f"measure {measure!r} is unknown; choose from {', '.join(DIVERSITY)}")
    if features.ndim not in (2, 3) or features.shape[:-1] != targets.shape[: features.ndim - 1]:
        raise InputError(
            f"features {tuple(features.shape)} do not fit targets {tuple(targets.shape)}; give "
            "(images, D) or (images, classes, D)"
        )
    counts = targets.sum(0).long().tolist()
    if size is None:
        size = min([50, *(n - 1 for n in counts if n >= 3)])
    if size < 2 or repeats < 2:
        raise InputError(f"size={size}, repeats={repeats}: give at least 2 of each")
    random, rows = torch.Generator().manual_seed(seed), []
    for c, n in enumerate(counts):
        value = error = float("nan")
        if n >= size:
            positive = targets[:, c].nonzero().flatten()
            x = (features if features.ndim == 2 else features[:, c])[positive].double()  # (n, D)
            index = torch.rand(repeats, n, generator=random).argsort(1)[:, :size]
            values = DIVERSITY[measure](x[index])  # (repeats,)
            value = float(values.mean())
            if n > size:
                error = float((values.var(unbiased=False) * size / (n - size)).sqrt())
        rows.append({"count": n, "size": size, "value": value, "error": error})
    return pd.DataFrame(rows)
