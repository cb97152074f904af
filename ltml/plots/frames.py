"""Tidy tables, one for each figure: what the static and the live figures both plot.

A row is one class, group, epoch or pair, and a column one thing. Classes are in the order in which
they are plotted: by descending training images, then by name. Arguments and errors are those of the
static figure; where one takes runs, it takes one run, several, or name -> run.

=================  =================================================================================
run, name          name of the run; of a run, of runs pooled over seeds, or of a setting
class, group       name of the class; head, medium, tail or a group of the reader's own
count              training images of the class
epoch, step        epoch, from 1; training steps until its end, ``steps`` in it
ap                 average precision on the test split, a fraction; NaN where it was not computed
positive           sum of \\|dL/dz\\| over images with the class; ``negative``: over those without
total              positive + negative
share              total as a fraction of that of all classes; ``equal_share`` is 1 / classes
of_peak            gradient per step of the epoch, as a fraction of that of the run's largest epoch
side, weight       positive or negative; what gradient balancing multiplies its gradient by
before, after      percent of the whole gradient that this side is, before and after weighing
mean, deviation    mAP in percent: mean over seeds, sample deviation (NaN for one)
seeds              runs in the mean
mAP                mAP in percent; in the column group, ``"mAP"`` stands for all classes
split              train, val or test
imbalance          largest over smallest total gradient of a class, mean over seeds
sampler, rate      name of the sampler; images with the class per sampled image
realised, draws    the same, counted over so many draws; NaN and 0 where none were counted
relative, ratio    rate over its group's geometric mean; largest over smallest rate in the group
source             group that images are sampled for, or ``"uniform"``
other, cosine      second class of a pair (``other_group``), and the cosine between their gradients
norm               norm of the gradient that the class sends into the features
ridge, images      as in :func:`ltml.audit.frontier`, with ``ratio`` and ``effective_images``
effective          percent of the images that are effective
part, difference   what was added, and by how many points of mAP one seed changed
half               half the width of the mean's confidence interval
value, error       diversity by a ``measure`` at a sample ``size``, and its standard error
x, y               position on the principal directions with ``explained_x``, ``explained_y`` of the
                   variance; ``nearest_own``: whether the own class's mean is the nearest
query, rank        row of similar images, and place in it: 0 is the image that the row begins with
image, holds       position in the record; whether the image holds the class
score, similarity  logit of the first image; cosine similarity of the others
labels             names of the other labels
=================  =================================================================================

Reliability is plotted from the table of :func:`ltml.metrics.calibration` as it is.
"""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ltml.errors import InputError
from ltml.labels import GROUPS, LabelMatrix

# Runs, readings, audits and records are told apart by what they hold, and what needs torch is
# imported where it is used: a table of runs need not wait for it.

__all__ = [
    "ablation",
    "balanced",
    "class_ap",
    "class_map",
    "class_rates",
    "cooccurrence",
    "counts",
    "curves",
    "differences",
    "diversity",
    "frontier",
    "gradient_history",
    "gradients",
    "group_map",
    "interference",
    "largest_over_smallest",
    "nearest",
    "rate_sources",
]

_SEED = re.compile(r"[+_ -]?seed[ _=-]?\d+$")  # as an ablation names its runs


def largest_over_smallest(values) -> float:
    """Return the ratio of the extremes of the positive values; NaN without any."""
    values = np.asarray(values, dtype=float)
    values = values[values > 0]
    return float(values.max() / values.min()) if len(values) else float("nan")


def counts(source) -> pd.DataFrame:
    """Return class, group, count of a :class:`~ltml.LabelMatrix` or a run."""
    if isinstance(source, LabelMatrix):
        names, groups = source.class_names, source.group_of_class()
        return _by_count(pd.DataFrame({"class": names, "group": groups, "count": source.counts}))
    return source.classes[["class", "group", "count"]]


def gradients(source, *, epoch: int | None = None, labels: LabelMatrix | None = None):
    """Return run, class, group, count, ap, positive, negative, total, share, equal_share."""
    parts = []
    for name, item in _named(source).items():
        if not hasattr(item, "per_class"):
            table = _table_of_reading(item, labels)
        elif epoch is None:
            table = _recorded(name, item).classes
        else:
            table = _recorded(name, item).per_class
            table = table[table.epoch == epoch].drop(columns="epoch")
            if table.empty:
                raise InputError(f"epoch={epoch}: run {name!r} has 1 to {len(item.metrics)}")
        parts.append(_with_shares(name, table))
    return pd.concat(parts, ignore_index=True)


def gradient_history(runs) -> pd.DataFrame:
    """Return the columns of :func:`gradients` and epoch, step, steps, of_peak, epoch by epoch."""
    parts = []
    for name, run in _named(runs).items():
        steps = run.metrics[["epoch", "step"]].assign(steps=np.diff(run.metrics.step, prepend=0))
        table = _with_shares(name, _recorded(name, run).per_class.merge(steps, on="epoch"))
        per_step = table.groupby("epoch").total.transform("sum") / table.steps
        parts.append(table.assign(of_peak=per_step / per_step.max()))
    return pd.concat(parts, ignore_index=True)


def balanced(source, *, strength: float = 0.5, max_weight: float = 100.0, epoch=None, labels=None):
    """Return the columns of :func:`gradients` and side, weight, before, after: two rows per class.

    The recorded sums take the place of the moving averages of gradient balancing.
    """
    import torch

    from ltml.dgb import DynamicGradientBalancing

    table = gradients(source, epoch=epoch, labels=labels)
    if not table.total.any():
        raise InputError(f"{table.run[0]!r} has no gradient to balance in epoch {epoch}")
    loss = DynamicGradientBalancing(len(table), strength=strength, max_weight=max_weight).double()
    loss.magnitudes.copy_(torch.tensor(table[["positive", "negative"]].to_numpy().T))
    parts = []
    for side, weight in zip(("positive", "negative"), loss.weights.numpy(), strict=True):
        before = 100 * table[side] / table.total.sum()
        parts.append(table.assign(side=side, weight=weight, before=before, after=weight * before))
    return pd.concat(parts, ignore_index=True)


def class_ap(runs) -> pd.DataFrame:
    """Return run, class, group, count, ap of each run's last epoch."""
    columns = ["run", "class", "group", "count", "ap"]
    return _together({n: run.classes.assign(run=n)[columns] for n, run in _named(runs).items()})


def group_map(runs, *, pool: bool = False) -> pd.DataFrame:
    """Return name, group, mean, deviation, seeds, as :func:`ltml.plots.group_dots` plots them."""
    named, pooled, rows = _named(runs), {}, []
    for name, run in named.items():
        pooled.setdefault(run.setting if pool else name, []).append(name)
    for names in pooled.values():
        name = names[0] if len(names) == 1 else _SEED.sub("", names[0])
        for group in ("mAP", *GROUPS):
            shares = [named[each].summary.get(group) for each in names]
            values = 100 * pd.Series(shares, dtype=float)
            rows.append((name, group, values.mean(), values.std(), len(names)))
    return pd.DataFrame(rows, columns=["name", "group", "mean", "deviation", "seeds"])


def curves(runs) -> pd.DataFrame:
    """Return run, epoch, step, split, group, mAP of every epoch that was evaluated."""
    parts = []
    for name, run in _named(runs).items():
        for split, prefix in (("test", ""), ("val", "val_")):
            groups = {prefix + group: group for group in ("mAP", *GROUPS)}
            if set(groups) <= set(run.metrics):
                table = run.metrics[["epoch", "step", *groups]].rename(columns=groups)
                long = table.melt(["epoch", "step"], var_name="group", value_name="share")
                mAP = 100 * long.pop("share").astype(float)
                parts.append(long.assign(run=name, split=split, mAP=mAP))
    return pd.concat(parts, ignore_index=True).dropna(subset="mAP", ignore_index=True)


def cooccurrence(labels: LabelMatrix) -> pd.DataFrame:
    """Return class, group, count, other, other_group, share of the images that hold the other."""
    if not labels.counts.any():
        raise InputError("labels hold no label on any image, so no classes appear together")
    names, groups = labels.class_names, labels.group_of_class()
    table = pd.DataFrame({"class": names, "group": groups, "count": labels.counts})
    return _pairs(table, "share", labels.cooccurrence())


def interference(cosine: np.ndarray, norm: np.ndarray, classes: pd.DataFrame) -> pd.DataFrame:
    """Return class, group, count, norm, other, other_group, cosine: a row for each pair.

    Args:
        cosine: ``(C, C)`` cosines between the gradients that classes send into the features.
        norm: ``(C,)`` norms of these gradients.
        classes: columns class, group, count, in the order of the arrays.
    """
    return _pairs(classes[["class", "group", "count"]].assign(norm=norm), "cosine", cosine)


def class_rates(samplers, *, draws: str = "all") -> pd.DataFrame:
    """Return sampler, class, group, count, rate, relative, ratio, realised, draws."""
    if draws not in ("all", "own"):
        raise InputError(f"draws={draws!r} is unknown; give all or own")
    from ltml.sampler import SAMPLERS

    if isinstance(samplers, LabelMatrix):
        samplers = {name: kind(samplers, batch_size=64) for name, kind in SAMPLERS.items()}
    parts = {n: _rates_of(item, draws) for n, item in _named(samplers, _sampler_name).items()}
    last = next(reversed(parts.values()))
    frame = _together({name: table.assign(sampler=name) for name, table in parts.items()})
    frame["group"] = frame["class"].map(last.set_index("class").group)
    by_group = frame.groupby(["sampler", "group"]).rate
    middle = by_group.transform(lambda rate: np.exp(np.log(rate).mean()))
    ratio = by_group.transform(largest_over_smallest)
    return frame.assign(relative=frame.rate / middle, ratio=ratio)


def rate_sources(sampler) -> pd.DataFrame:
    """Return class, group, count, source, rate: for which group each class's images are sampled."""
    own, labels, audit = sampler.group_probabilities(), sampler.labels, sampler.audit()
    if not own:
        kind = type(sampler).__name__
        raise InputError(f"a {kind} samples for no group; give a class-aware or group sampler")
    rates = {name: sampler.shares[name] * labels.rates(p) for name, p in own.items()}
    rest = 1 - sum(sampler.shares[name] for name in own)
    if rest > 1e-9:
        rates["uniform"] = rest * labels.counts / len(labels)
    parts = [_of_classes(audit, source=name, rate=rate) for name, rate in rates.items()]
    return pd.concat(parts, ignore_index=True)


def frontier(table: pd.DataFrame, *, compare=None) -> pd.DataFrame:
    """Return sampler, group, ridge (NaN: compared), ratio, effective_images, images, effective."""
    if table.empty:
        raise InputError("the table of the frontier is empty; give it at least one ridge")
    frame = table.assign(sampler="group").sort_values("ridge", kind="stable")
    if compare is not None:
        own = {"own_ratio": "ratio", "own_effective_images": "effective_images"}
        other = compare.groups[list(own)].rename(columns=own).rename_axis("group").reset_index()
        other = other.merge(table[["group", "images"]].drop_duplicates())
        frame = pd.concat([frame, other.assign(sampler=_sampler_name(compare))], ignore_index=True)
    return frame.assign(effective=100 * frame.effective_images / frame.images)


def ablation(table: pd.DataFrame) -> pd.DataFrame:
    """Return name, sampler, loss, diversity, imbalance, group, mean, deviation, seeds."""
    parts = ["sampler", "loss", "diversity"]
    long = table.melt([*parts, "gradient_imbalance"], ["mAP", *GROUPS], "group", "percent")
    frame = long.groupby([*parts, "group"], sort=False, as_index=False).agg(
        imbalance=("gradient_imbalance", "mean"),
        mean=("percent", "mean"),
        deviation=("percent", "std"),
        seeds=("percent", "size"),
    )
    return frame.assign(name=frame.sampler + " · " + frame.loss + " · " + frame.diversity)


def differences(table: pd.DataFrame, *, quantile: float | None = None) -> pd.DataFrame:
    """Return part, group, seed, difference, mean, half."""
    from scipy.stats import t

    values = table.groupby(["part", "group"], sort=False).difference
    n, mean, deviation = (values.transform(what) for what in ("size", "mean", "std"))
    q = t.ppf(0.975, n - 1) if quantile is None else quantile
    return table.assign(mean=mean, half=(q * deviation / np.sqrt(n)).fillna(0.0))


def diversity(records, *, measure: str = "vendi", split: str = "test", size: int | None = None):
    """Return run, class, group, count, split, measure, size, recorded, value, error."""
    named = _named(records)
    sizes = [item.common_size for item in named.values() if not isinstance(item, pd.DataFrame)]
    options = {"measure": measure, "split": split, "size": size or min(sizes, default=None)}
    for name, item in named.items():
        table = item if isinstance(item, pd.DataFrame) else item.diversity(**options)
        named[name] = table.assign(run=name)
    frame = _together(named)
    for column in ("measure", "size"):
        if frame[column].nunique() > 1:
            found = " and ".join(str(value) for value in frame[column].unique())
            raise InputError(f"{column} is {found}; compare tables of one {column}")
    return frame


def class_map(record, *, split: str = "test") -> pd.DataFrame:
    """Return class, group, image, x, y, explained_x, explained_y, nearest_own: a row per positive.

    Features are compared at unit length; each image is left out of the class mean that it is
    compared with.
    """
    part = record.split(split)
    if len(part.cls) < 3:
        raise InputError(f"the {split} split has {len(part.cls)} positives on record; too few")
    x = part.features.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    u, sigma, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    largest = np.abs(directions[:2]).argmax(1)
    at = u[:, :2] * sigma[:2] * np.sign(directions[[0, 1], largest])  # the SVD leaves the sign open
    explained = sigma[:2] ** 2 / max(np.sum(sigma**2), 1e-300)
    table = record.classes[["class", "group"]].iloc[part.cls].reset_index(drop=True)
    table = table.assign(image=part.image, x=at[:, 0], y=at[:, 1])
    table["explained_x"], table["explained_y"] = explained
    return table.assign(nearest_own=_nearest_own(x, part.cls, len(record.classes)))


def nearest(
    record, class_name: str, *, split: str = "test", queries: int = 3, neighbors: int = 6
) -> pd.DataFrame:
    """Return query, rank, image, holds, score, similarity, labels: what a class finds similar."""
    part, c, rows = record.split(split), record.index(class_name), []
    if queries < 1 or neighbors < 1:
        raise InputError(f"queries={queries}, neighbors={neighbors}: give at least 1 of each")
    ranked = part.rows(c)[np.argsort(-part.score[part.rows(c)], kind="stable")]
    if not ranked.size:
        raise InputError(f"class {class_name!r} has no positive in the {split} split")
    names = record.classes["class"]
    picked = ranked[np.linspace(0, len(ranked) - 1, min(queries, len(ranked))).astype(int)]
    for query, row in enumerate(picked):
        images = [part.image[row], *part.neighbors[row, :neighbors]]
        similar = [np.nan, *part.similarity[row, :neighbors].astype(float)]
        for rank, (image, similarity) in enumerate(zip(images, similar, strict=True)):
            if image >= 0:  # -1: there are no more
                held = np.flatnonzero(part.labels[image])
                others = ", ".join(names[held[held != c]])
                score = part.score[row] if rank == 0 else np.nan
                rows.append((query, rank, image, c in held, score, similarity, others))
    columns = ["query", "rank", "image", "holds", "score", "similarity", "labels"]
    return pd.DataFrame(rows, columns=columns)


def _named(items, name_of=lambda item: getattr(item, "name", "")) -> dict:
    """Name what is given: by key, or by its own name, numbered where it repeats."""
    named = dict(items) if isinstance(items, Mapping) else {}
    if not isinstance(items, Mapping):
        single = isinstance(items, pd.DataFrame) or hasattr(items, "groups")  # a sampler iterates
        for item in [items] if single or not hasattr(items, "__iter__") else items:
            name, number = name_of(item), 1
            while (label := f"{name} ({number})" if number > 1 else name) in named:
                number += 1
            named[label] = item
    if not named:
        raise InputError("nothing was given to plot; give at least one")
    return named


def _together(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put tables of the same classes below one another.

    Raises:
        InputError: if the classes differ.
    """
    (first, table), *others = parts.items()
    for name, other in others:
        if set(other["class"]) != set(table["class"]):
            raise InputError(f"{first!r} and {name!r} have different classes; give one data set")
    return pd.concat(parts.values(), ignore_index=True)


def _by_count(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)


def _recorded(name: str, run):
    if run.per_class[["grad_pos", "grad_neg"]].isna().all(axis=None):
        raise InputError(f"run {name!r} holds no record of its gradients; train it again")
    return run


def _table_of_reading(reading, labels: LabelMatrix | None) -> pd.DataFrame:
    if labels is None:
        raise InputError("a reading of a ledger has no class names; give labels=")
    sums = {"grad_pos": reading.positive, "grad_neg": reading.negative, "ap": np.nan}
    return pd.DataFrame({"class": labels.class_names, **sums}).merge(counts(labels), on="class")


def _with_shares(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Give a table the names of the columns here; epochs, if any, each have their own shares."""
    table = table.rename(columns={"grad_pos": "positive", "grad_neg": "negative"})
    time = [column for column in ("epoch", "step", "steps") if column in table]
    table = _by_count(table[[*time, "class", "group", "count", "ap", "positive", "negative"]])
    table = table.sort_values(time, kind="stable", ignore_index=True) if time else table
    table.insert(0, "run", name)
    table["total"] = table.positive + table.negative
    whole = table.groupby("epoch").total.transform("sum") if time else table.total.sum()
    return table.assign(share=table.total / whole, equal_share=1 / table["class"].nunique())


def _pairs(table: pd.DataFrame, name: str, values: np.ndarray) -> pd.DataFrame:
    """Return a row for each pair of classes, with the entries of a (C, C) array as a column."""
    table = _by_count(table.assign(at=np.arange(len(table))))
    other = table[["class", "group", "at"]].set_axis(["other", "other_group", "other_at"], axis=1)
    frame = table.merge(other, how="cross")
    frame[name] = np.asarray(values)[frame.pop("at"), frame.pop("other_at")]
    return frame


def _sampler_name(item) -> str:
    from ltml.sampler import SAMPLERS

    kind = getattr(item, "sampler", type(item).__name__)  # an audit has the name of the class
    return next((name for name, each in SAMPLERS.items() if each.__name__ == kind), kind)


def _rates_of(item, draws: str) -> pd.DataFrame:
    """Return class, group, count, rate, realised, draws of a sampler or an audit."""
    audit = item.audit() if hasattr(item, "audit") else item
    rate = audit.expected.copy()
    if draws == "own":
        if audit is item:
            raise InputError('an audit holds no rates of draws="own"; give the sampler itself')
        for group, p in item.group_probabilities().items():
            rate[item.groups[group]] = item.labels.rates(p)[item.groups[group]]
    realised = np.nan if audit.realised is None else audit.realised
    table = _of_classes(audit, rate=rate, realised=realised, draws=audit.draws)
    table.loc[table["count"] == 0, ["rate", "realised"]] = np.nan  # no place on a logarithmic axis
    return table


def _of_classes(audit, **columns) -> pd.DataFrame:
    """Return class, group, count and these columns, group by group; classes of no group last."""
    first = {"class": audit.class_names, "group": audit.group, "count": audit.counts}
    table = _by_count(pd.DataFrame(first | columns))
    place = {name: i for i, name in enumerate(audit.groups.index)}
    order = table.group.map(place).fillna(len(place)).argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _nearest_own(x: np.ndarray, cls: np.ndarray, C: int) -> np.ndarray:
    """Whether each row is nearer to the mean of its class's other rows than to other means."""
    n = np.bincount(cls, minlength=C)
    sums = np.zeros((C, x.shape[1]))
    np.add.at(sums, cls, x)
    means = sums / np.maximum(n, 1)[:, None]
    square = (x**2).sum(1)[:, None] - 2 * x @ means.T + (means**2).sum(1)
    square[:, n == 0] = np.inf
    rest = (sums[cls] - x) / np.maximum(n[cls] - 1, 1)[:, None]
    square[np.arange(len(x)), cls] = np.where(n[cls] > 1, ((x - rest) ** 2).sum(1), np.inf)
    return square.argmin(1) == cls
