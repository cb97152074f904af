"""Ranking, classification, calibration and feature diversity, per class and per group."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from torch import Tensor

from ltml.core.entries import to_numpy, zeros_and_ones
from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.options import choose

# Every metric takes arrays, tensors of any device, frames, lists and, as targets, a LabelMatrix;
# targets are 0, 1, or NaN where nobody knows, and such entries are as if they were not there.


def average_precision(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    r"""Compute each class's step-wise average precision, scikit-learn's definition.

    .. math:: AP_c = \sum_k (R_k - R_{k-1}) P_k

    over the distinct scores in descending order. A class without a positive has none: it is NaN.

    Args:
        scores: ``(N, C)`` logits or probabilities; only their order within a class matters.
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown: an image whose label of a class is
            unknown does not count for it, as LVIS and Open Images score.

    Returns:
        ``(C,)`` float64 in [0, 1], NaN for classes without a positive.

    Raises:
        InputError: if the shapes disagree, a score is NaN, or a target is anything else.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
        >>> average_precision(scores, torch.tensor([[1, 0], [0, 0], [1, 0]])).round(4)
        array([0.8333,    nan])
    """
    ranked, hits, known, last = _ranking(*check_scores(scores, targets))
    N, found = ranked.shape[1], hits.cumsum(1)
    precision = found / known.clamp(min=1).double()
    # Images with equal scores count together: each takes the precision at the last of them.
    end = torch.where(last, torch.arange(N), N).flip(1).cummin(1).values.flip(1)
    return ((hits * precision.gather(1, end)).sum(1) / hits.sum(1)).numpy()


def check_scores(
    scores: ArrayLike, targets: ArrayLike, *, probabilities: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check what a metric is given: scores, whether positive, and whether known (None: all are)."""
    name = "probabilities" if probabilities else "scores"
    found = _matrix(scores, name)
    wanted = torch.from_numpy(zeros_and_ones(targets, "targets"))
    if found.shape != wanted.shape or found.ndim != 2:
        shapes = f"{name} {tuple(found.shape)} and targets {tuple(wanted.shape)}"
        raise InputError(f"{shapes} differ; give both as (images, classes)")
    if not found.numel():
        raise InputError(f"{name} have shape {tuple(found.shape)}; give at least one image")
    for axis in ("index", "columns"):
        _same_order(name, _labels_of(scores, axis), "targets", _labels_of(targets, axis), axis)
    if found.isnan().any():
        row, column = found.isnan().nonzero()[0].tolist()
        cause = "the training diverged: lower its learning rate, or leave the image out"
        raise InputError(f"{name} hold NaN at image {row}, class {column}; {cause}")
    if probabilities and not ((found >= 0) & (found <= 1)).all():
        span = f"probabilities span {found.min():g} to {found.max():g}"
        raise InputError(f"{span}; give logits.sigmoid()")
    unknown = wanted.isnan() if wanted.is_floating_point() else torch.zeros(1, dtype=torch.bool)
    return found, wanted == 1, ~unknown if unknown.any() else None


def _matrix(x: ArrayLike, name: str) -> Tensor:
    """Numbers of any kind as a floating-point tensor on the CPU."""
    if not isinstance(x, Tensor):
        array = to_numpy(x, name)
        small = array.dtype.kind == "f" and array.itemsize <= 8
        # a copy, since torch takes neither negative strides nor the other byte order
        x = torch.from_numpy(array.astype(f"f{array.itemsize}" if small else "f8", order="C"))
    elif x.is_complex():
        raise InputError(f"{name} are of {x.dtype}; give numbers")
    x = x.detach().to_dense().cpu()
    if x.is_floating_point():
        return x.float() if x.itemsize < 4 else x
    return x.double()


def _same_order(name: str, ours: list | None, other: str, theirs: list | None, axis: str) -> None:
    """Refuse frames whose rows or columns are the same in another order."""
    if (
        ours is None
        or theirs is None
        or ours == theirs
        or sorted(map(str, ours)) != sorted(map(str, theirs))
    ):
        return
    at = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    raise InputError(
        f"{axis} of {name} and {other} are in another order ({ours[at]!r} and {theirs[at]!r} in "
        f"place {at}); give {other}.reindex({axis}={name}.{axis})"
    )


def _labels_of(x, axis: str) -> list | None:
    if isinstance(x, LabelMatrix):
        return list(x.class_names) if axis == "columns" else None
    return list(getattr(x, axis)) if isinstance(x, pd.DataFrame) else None


def _groups(groups: Mapping[str, Sequence[int]] | None, C: int, all_of_them: str) -> dict:
    """Check groups of classes, and put before them that of all classes."""
    if not isinstance(groups, Mapping | None):
        raise InputError(f"groups is {type(groups).__name__}; give name -> class indices")
    out = {all_of_them: np.arange(C)}
    for name, classes in (groups or {}).items():
        if name in out:
            raise InputError(f"groups hold {name!r}, the row of all classes; give another name")
        found = np.atleast_1d(np.asarray(classes.cpu() if hasattr(classes, "cpu") else classes))
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise InputError(f"groups[{name!r}] is {classes!r}; give class indices")
        for c in found[(found < 0) | (found >= C)][:1]:
            raise InputError(f"groups[{name!r}] holds class {c}; give indices 0 to {C - 1}")
        out[name] = found.astype(np.int64)
    return out


def _ranking(
    scores: Tensor, positive: Tensor, known: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rank each class's images: scores, positives, known ones so far, and the last of each score.

    Unknown ones come last, at a score of minus infinity.
    """
    scores = scores if known is None else scores.masked_fill(~known, -math.inf)
    ranked, order = scores.T.contiguous().sort(dim=1, descending=True)  # (C, N)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:, :-1] = ranked[:, 1:] != ranked[:, :-1]
    hits, N = positive.T.gather(1, order).double(), len(scores)
    so_far = torch.arange(1, N + 1) if known is None else known.T.gather(1, order).cumsum(1)
    return ranked, hits, so_far, last


def auroc(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    r"""Compute each class's area under the ROC curve: how often a positive outranks a negative.

    .. math:: \mathrm{AUROC}_c = \frac{1}{n_c^+ n_c^-} \sum_{i \in +} \sum_{j \in -}
              \bigl[s_i > s_j\bigr] + \tfrac{1}{2} \bigl[s_i = s_j\bigr]

    Args:
        scores: ``(N, C)`` logits or probabilities; only their order within a class matters.
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown: such entries do not count.

    Returns:
        ``(C,)`` float64 in [0, 1], NaN for classes without a positive or without a negative.

    Raises:
        InputError: as :func:`average_precision`.

    Example:
        >>> scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
        >>> auroc(scores, torch.tensor([[1, 0], [0, 0], [1, 0]]))
        array([0.5, nan])
    """
    s, y, known = check_scores(scores, targets)
    known = torch.ones_like(y) if known is None else known
    s, y, known = s.numpy(), y.numpy(), known.numpy()
    found = np.full(s.shape[1], np.nan)
    for c in range(s.shape[1]):
        positive, negative = s[y[:, c], c], s[known[:, c] & ~y[:, c], c]
        n = len(positive)
        if n and len(negative):  # Mann and Whitney's U, from ranks
            ranks = rankdata(np.concatenate([positive, negative]))[:n]
            found[c] = (ranks.sum() - n * (n + 1) / 2) / (n * len(negative))
    return found


def group_map(ap: ArrayLike, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Average the per-class AP over all classes and over each group, absent classes left out.

    Args:
        ap: ``(C,)`` average precisions, NaN where a class has none.
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        ``{"mAP": ..., "head": ..., "medium": ..., "tail": ...}``; NaN where no class has an AP.

    Example:
        >>> groups = {"head": np.array([0]), "tail": np.array([1, 2])}
        >>> group_map(np.array([0.8, 0.4, np.nan]), groups)
        {'mAP': 0.6000000000000001, 'head': 0.8, 'tail': 0.4}
    """

    def mean(values: np.ndarray) -> float:
        present = values[~np.isnan(values)]
        return float(present.mean()) if present.size else float("nan")

    ap = _matrix(ap, "ap").double().numpy()
    if ap.ndim != 1:
        raise InputError(f"ap has shape {ap.shape}; give one number a class, (C,)")
    groups = _groups(groups, len(ap), "mAP")
    return {name: mean(ap[classes]) for name, classes in groups.items()}


def f1_thresholds(probabilities: ArrayLike, targets: ArrayLike) -> Tensor:
    r"""Find the threshold of each class that maximises :math:`F_1 = 2TP / (2TP + FP + FN)`.

    Choose thresholds on a validation split. A class is predicted where its probability is at least
    the threshold, which lies halfway between the probabilities of two images.

    Args:
        probabilities: ``(N, C)``, in [0, 1].
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown.

    Returns:
        ``(C,)`` float64; NaN for classes without a positive.

    Example:
        >>> p, y = torch.tensor([0.9, 0.4, 0.3, 0.1]), torch.tensor([1, 1, 0, 0])
        >>> f1_thresholds(p[:, None], y[:, None])
        tensor([0.3500], dtype=torch.float64)
    """
    checked = check_scores(probabilities, targets, probabilities=True)
    ranked, hits, predicted, last = _ranking(*checked)
    positives = hits.sum(1, keepdim=True)
    f1 = torch.where(last, 2 * hits.cumsum(1) / (predicted + positives), -1)
    best = f1.argmax(1, keepdim=True)
    below = torch.nn.functional.pad(ranked[:, 1:], (0, 1)).clamp(min=0)  # the next, at the end 0
    threshold = (ranked.gather(1, best).double() + below.gather(1, best)) / 2
    return torch.where(positives > 0, threshold, math.nan).squeeze(1)


def classification(
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    thresholds: float | ArrayLike = 0.5,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> pd.DataFrame:
    r"""Compute the precision, recall and F1 that multi-label work reports.

    .. math:: CF_1 = \frac{2\, CP \cdot CR}{CP + CR}, \qquad OF_1 = \frac{2\, OP \cdot OR}{OP + OR}

    CP and CR are the means over classes of precision and recall, OP and OR those of all predictions
    pooled; macro F1 is the mean of the classes' own F1. Classes without a positive are left out.
    The precision of a class that is never predicted is 0.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown.
        thresholds: one for all classes, or ``(C,)``, such as :func:`f1_thresholds` finds; a class
            whose threshold is NaN is never predicted.
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        a row for all classes (``"all"``) and for each group.

    References:
        | CNN-RNN: A Unified Framework for Multi-label Image Classification (Wang et al., CVPR 2016)
        | https://arxiv.org/abs/1604.04573

    Example:
        >>> p, y = torch.tensor([[0.9, 0.2], [0.6, 0.7]]), torch.tensor([[1, 0], [0, 1]])
        >>> classification(p, y).round(3)
               CP   CR    CF1     OP   OR  OF1  macro_F1
        all  0.75  1.0  0.857  0.667  1.0  0.8     0.833
    """
    p, y, known = check_scores(probabilities, targets, probabilities=True)
    guess = p >= _thresholds(thresholds, p.shape[1], _labels_of(probabilities, "columns"))
    guess = guess if known is None else guess & known
    hits, predicted, positives = (x.sum(0).double().numpy() for x in (guess & y, guess, y))
    rows = {}
    for name, classes in _groups(groups, p.shape[1], "all").items():
        c = classes[positives[classes] > 0]
        tp, made, held, n = hits[c], predicted[c], positives[c], np.float64(len(c))
        per_class = tp / made.clip(1), tp / held, 2 * tp / (made + held)
        with np.errstate(invalid="ignore"):  # NaN for a group without classes
            cp, cr, f1 = (x.sum() / n for x in per_class)
            op, recall = tp.sum() / made.sum().clip(min(n, 1)), tp.sum() / held.sum()
        rows[name] = cp, cr, _f1(cp, cr), op, recall, _f1(op, recall), f1
    columns = ["CP", "CR", "CF1", "OP", "OR", "OF1", "macro_F1"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _thresholds(thresholds, C: int, class_names: list | None) -> float | Tensor:
    found = _matrix(thresholds, "thresholds")
    if found.shape not in ((), (C,)):
        raise InputError(
            f"thresholds have shape {tuple(found.shape)}; give one number, or one a class, ({C},)"
        )
    if isinstance(thresholds, pd.Series):
        names = list(thresholds.index)
        _same_order("probabilities", class_names, "thresholds", names, "columns")
    outside = (found < 0) | (found > 1)
    if outside.any():
        raise InputError(f"thresholds hold {found[outside][0]:g}; give probabilities, 0 to 1")
    return found.double() if found.ndim else found.item()


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def calibration(
    probabilities: ArrayLike,
    targets: ArrayLike,
    *,
    bins: int = 15,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> pd.DataFrame:
    r"""Compare predicted probabilities with observed frequencies, in bins of equal width.

    The expected calibration error of a group is
    :math:`\sum_b \frac{n_b}{n} |\text{predicted}_b - \text{observed}_b|`.

    Args:
        probabilities: ``(N, C)``.
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown.
        bins: number of bins over [0, 1].
        groups: group name -> class indices, as of :meth:`ltml.LabelMatrix.groups`.

    Returns:
        a row per bin that is not empty, of all classes (``"all"``) and of each group: group, bin,
        predicted (mean), observed (frequency), count, and error (of the whole group).

    References:
        | Obtaining Well Calibrated Probabilities Using Bayesian Binning (Naeini et al., AAAI 2015)

    Example:
        >>> p, y = torch.tensor([[0.9], [0.7], [0.3]]), torch.tensor([[1], [0], [0]])
        >>> calibration(p, y, bins=2).round(2)
          group  bin  predicted  observed  count  error
        0   all    0        0.3       0.0      1    0.3
        1   all    1        0.8       0.5      2    0.3
    """
    if not isinstance(bins, int | np.integer) or bins < 1:
        raise InputError(f"bins is {bins!r}; give a whole number, 1 or more")
    p, y, known = check_scores(probabilities, targets, probabilities=True)
    known = torch.ones_like(y) if known is None else known
    p, y, known = p.double().numpy(), y.double().numpy(), known.numpy()
    tables = []
    for name, classes in _groups(groups, p.shape[1], "all").items():
        x, held = (x[:, classes][known[:, classes]] for x in (p, y))
        bin_of = np.minimum((x * bins).astype(int), bins - 1)
        count, predicted, observed = (np.bincount(bin_of, w, bins) for w in (None, x, held))
        n = count[count > 0]
        predicted, observed = predicted[count > 0] / n, observed[count > 0] / n
        error = (abs(predicted - observed) * n).sum() / max(n.sum(), 1)
        columns = {"group": name, "bin": np.flatnonzero(count), "predicted": predicted}
        tables.append(pd.DataFrame(columns | {"observed": observed, "count": n, "error": error}))
    return pd.concat(tables, ignore_index=True)


def vendi_score(features: Tensor) -> Tensor:
    r"""Compute the effective number of different samples among ``(..., n, D)``, in [1, n].

    .. math:: \operatorname{VS} = \exp\Bigl(-\sum_i \lambda_i \log \lambda_i\Bigr)

    with :math:`\lambda_i` the eigenvalues of :math:`K / n`, and :math:`K` the cosine similarities:
    1 if all samples point in the same direction, ``n`` if all are orthogonal.

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
    r"""Compute the effective number of directions that samples ``(..., n, D)`` spread over.

    .. math:: \operatorname{erank} = \exp\Bigl(-\sum_i p_i \log p_i\Bigr), \qquad
              p_i = \sigma_i \big/ \textstyle\sum_j \sigma_j

    with :math:`\sigma_i` the singular values of the features about their mean: from 1, also for
    samples that do not differ at all, to min(n - 1, D).

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
    r"""Average :math:`1 - \cos(x_i, x_j)` over all pairs of samples ``(..., n, D)``.

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
    features: ArrayLike, targets: ArrayLike, *, measure: str = "vendi", size: int | None = None
) -> pd.DataFrame:
    r"""Measure the diversity of each class's positives at one sample size, by rarefaction.

    More samples are more diverse whatever they are, so a class of five images cannot be compared
    with one of a thousand directly. Each class is measured on 100 random subsets of ``size`` of its
    positives. The standard error is the delete-d jackknife's (Shao & Wu, 1989): with variance
    :math:`v` over subsets of :math:`m` of :math:`n` samples, :math:`\sqrt{v\, m / (n - m)}`.

    Args:
        features: ``(N, D)``.
        targets: ``(N, C)`` of 0 and 1, or NaN where unknown, which is no positive.
        measure: a name of :data:`DIVERSITY`.
        size: samples :math:`m` in a subset, at least 2. Default: one fewer than the smallest class
            of at least three has, and at most 50.

    Returns:
        a row per class: ``count`` (positives), ``size``, ``value`` and ``error``; NaN where a class
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
    choose("measure", measure, DIVERSITY)
    features = _matrix(features, "features")
    targets = torch.from_numpy(zeros_and_ones(targets, "targets")) == 1
    if features.ndim != 2 or targets.ndim != 2 or len(features) != len(targets):
        shapes = f"features {tuple(features.shape)} do not fit targets {tuple(targets.shape)}"
        raise InputError(f"{shapes}; give (images, D) and (images, classes)")
    if not features.isfinite().all():
        raise InputError("features are infinite or NaN; check images and weights")
    counts = targets.sum(0).tolist()
    if size is None:
        size = min([50, *(n - 1 for n in counts if n >= 3)])
    if not isinstance(size, int | np.integer) or size < 2:
        raise InputError(f"size is {size!r}; give a whole number, 2 or more")
    random, rows = torch.Generator().manual_seed(0), []
    for c, n in enumerate(counts):
        value = error = float("nan")
        if n >= size:
            x = features[targets[:, c].nonzero().flatten()].double()  # (n, D)
            index = torch.rand(100, n, generator=random).argsort(1)[:, :size]
            values = DIVERSITY[measure](x[index])  # (100,)
            value = float(values.mean())
            if n > size:
                error = float((values.var(unbiased=False) * size / (n - size)).sqrt())
        rows.append({"count": n, "size": size, "value": value, "error": error})
    return pd.DataFrame(rows)
