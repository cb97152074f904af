"""Tidy tables, one for each figure: what the static and the live figures both plot.

A row is one class, group, epoch or pair. Classes are in the order in which they are plotted: by
descending training images, then by name. Runs are one run, several, or name -> run; each may be
given as its folder.
"""

import os
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ltml.core.errors import InputError
from ltml.core.labels import GROUPS, LabelMatrix
from ltml.runs.run import Run

# What needs torch is imported where it is used: a table of runs need not wait for it.


_SEED = re.compile(r"[+_ -]?seed[ _=-]?\d+$")  # as an ablation names its runs


def largest_over_smallest(values) -> float:
    """Return the ratio of the extremes of the positive values; NaN without any."""
    values = np.asarray(values, dtype=float)
    values = values[values > 0]
    return float(values.max() / values.min()) if len(values) else float("nan")


def named(items, name_of=lambda item: getattr(item, "name", "")) -> dict:
    """Name what is given: by key, or by its own name.

    Runs of one name have their parent folder's before it; what is still the same is numbered.
    """
    if isinstance(items, Mapping):
        found = dict(items)
    else:
        single = isinstance(items, pd.DataFrame) or hasattr(items, "groups")  # a sampler iterates
        items = [items] if single or not hasattr(items, "__iter__") else list(items)
        names, found = [name_of(item) for item in items], {}
        for item, name in zip(items, names, strict=True):
            if names.count(name) > 1 and hasattr(item, "path"):
                name = f"{item.path.absolute().parent.name}/{name}"
            number, label = 1, name
            while label in found:
                number += 1
                label = f"{name} ({number})"
            found[label] = item
    if not found:
        raise InputError("nothing was given to plot; give at least one")
    return found


def runs_of(items) -> dict[str, Run]:
    """Name runs, each given as it is or as its folder; see :func:`named`.

    Raises:
        InputError: if something else is among them, or a folder holds no finished run.
    """

    def read(item) -> Run:
        if isinstance(item, str | os.PathLike):
            return Run.load(item)
        if not isinstance(item, Run):
            kind = type(item).__name__
            raise InputError(f"a run is of type {kind}; give runs, or folders of runs")
        return item

    if isinstance(items, Mapping):
        return named({name: read(item) for name, item in items.items()})
    one = isinstance(items, str) or not hasattr(items, "__iter__")
    return named([read(item) for item in ([items] if one else items)])


def rarest(groups) -> str:
    """Return the rarest of head, medium and tail that occurs."""
    return [group for group in GROUPS if group in set(groups)][-1]


def split(frame: pd.DataFrame, column: str = "run") -> dict[str, pd.DataFrame]:
    """Split a frame by a column, in the order in which its values come."""
    return {name: part.reset_index(drop=True) for name, part in frame.groupby(column, sort=False)}


def counts(source) -> pd.DataFrame:
    """Return class, group, count of a :class:`~ltml.LabelMatrix` or a run."""
    if isinstance(source, LabelMatrix):
        names, groups = source.class_names, source.group_of_class()
        return _by_count(pd.DataFrame({"class": names, "group": groups, "count": source.counts}))
    (run,) = runs_of([source]).values()
    return run.classes[["class", "group", "count"]]


def gradients(runs, *, epoch: int | None = None) -> pd.DataFrame:
    r"""Return run, class, group, count, ap, positive, negative, total, share, equal_share.

    Positive and negative are sums of :math:`|\partial L / \partial z|` over images with and without
    the class, total is their sum, and share its fraction of all classes' total.
    """
    parts = []
    for name, run in _recorded(runs).items():
        table = run.classes
        if epoch is not None:
            table = run.per_class[run.per_class.epoch == epoch].drop(columns="epoch")
        if table.empty:
            raise InputError(f"epoch={epoch}: run {name!r} has 1 to {len(run.metrics)}")
        parts.append(_with_shares(name, table))
    return pd.concat(parts, ignore_index=True)


def gradient_history(runs) -> pd.DataFrame:
    """Return the columns of :func:`gradients` and epoch, step, steps, of_peak, epoch by epoch.

    An epoch ends at a step, has so many steps, and its gradient per step is a fraction of the run's
    largest.
    """
    parts = []
    for name, run in _recorded(runs).items():
        steps = run.metrics[["epoch", "step"]].assign(steps=np.diff(run.metrics.step, prepend=0))
        table = _with_shares(name, run.per_class.merge(steps, on="epoch"))
        per_step = table.groupby("epoch").total.transform("sum") / table.steps
        parts.append(table.assign(of_peak=per_step / per_step.max()))
    return pd.concat(parts, ignore_index=True)


def gradient_imbalance(runs) -> pd.DataFrame:
    """Return run, epoch, step, imbalance: the largest over the smallest gradient of a class.

    Classes without gradient in an epoch are left out of it.
    """
    history = gradient_history(runs)
    by = history.groupby(["run", "epoch", "step"], sort=False, as_index=False)
    return by.total.agg(largest_over_smallest).rename(columns={"total": "imbalance"})


def balanced(run, *, strength: float = 0.5, max_weight: float = 100.0) -> pd.DataFrame:
    """Return the columns of :func:`gradients` and side, weight, before, after: two rows per class.

    Before and after weighting, a side (positive or negative) is a percent of the whole gradient.
    The recorded sums take the place of the moving averages.
    """
    import torch

    from ltml.core.dgb import DynamicGradientBalancing

    table = gradients(run)
    if not table.total.any():
        raise InputError(f"{table.run[0]!r} has no gradient to balance")
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
    return _together({n: run.classes.assign(run=n)[columns] for n, run in runs_of(runs).items()})


def group_map(runs, *, pool: bool = False) -> pd.DataFrame:
    """Return name, group, mean, deviation, seeds of the mAP in percent, also of group ``"mAP"``.

    With ``pool``, runs that differ by their seed alone are one; else each has a NaN deviation.
    """
    found, pooled, rows = runs_of(runs), {}, []
    for name, run in found.items():
        pooled.setdefault(run.setting if pool else name, []).append(name)
    for names in pooled.values():
        name = names[0] if len(names) == 1 else _SEED.sub("", names[0])
        for group in ("mAP", *GROUPS):
            shares = [found[each].summary.get(group) for each in names]
            values = 100 * pd.Series(shares, dtype=float)
            rows.append((name, group, values.mean(), values.std(), len(names)))
    return pd.DataFrame(rows, columns=["name", "group", "mean", "deviation", "seeds"])


def stages(runs) -> pd.DataFrame:
    """Return the columns of :func:`group_map` for each network that a run with a refit ended with.

    There are no rows for other runs.
    """
    columns, parts = ["name", "group", "mean", "deviation", "seeds"], []
    for name, run in runs_of(runs).items():
        if (table := run.stages).empty:
            continue
        whole = pd.concat([table, table.assign(group="mAP")])
        means = whole.groupby(["classifier", "group"], sort=False).ap.mean().reset_index()
        parts.append(means.assign(name=f"{name}: " + means.classifier, mean=100 * means.ap))
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True).assign(deviation=np.nan, seeds=1)[columns]


def curves(runs) -> pd.DataFrame:
    """Return run, epoch, step, split, group, mAP of every epoch that was evaluated."""
    parts = []
    for name, run in runs_of(runs).items():
        long = run.metrics.melt(["epoch", "step"])
        parted = long.pop("variable").str.extract(r"^(val_)?(mAP|head|medium|tail)$")
        long["split"] = parted[0].map({"val_": "val"}).fillna("test")
        parts.append(long.assign(run=name, group=parted[1]))
    found = pd.concat(parts).dropna(subset=["group", "value"], ignore_index=True)
    return found.assign(mAP=100 * found.pop("value").astype(float))


def interference(runs, *, epoch: int | None = None) -> pd.DataFrame:
    """Return run, class, group, count, norm, other, other_group, cosine: a row for each pair.

    Args:
        runs: runs that recorded it.
        epoch: number of the epoch, from 1; default: the last.
    """
    parts = []
    for name, run in runs_of(runs).items():
        path = run.path / "interference.npz"
        if not path.is_file():
            raise InputError(
                f"run {name!r} has no record of interference; train it with --interference"
            )
        with np.load(path) as record:  # epoch (E,), class_names (C,), norm (E, C), cosine (E, C, C)
            at = -1 if epoch is None else np.searchsorted(record["epoch"][:-1], epoch)
            norm, cosine = record["norm"][at], record["cosine"][at].astype(float)
            classes = run.classes.set_index("class").loc[record["class_names"]].reset_index()
        table = classes[["class", "group", "count"]].assign(norm=norm, at=np.arange(len(norm)))
        table = _by_count(table)
        other = table[["class", "group", "at"]].set_axis(["other", "other_group", "to"], axis=1)
        frame = table.merge(other, how="cross")
        frame["cosine"] = cosine[frame.pop("at"), frame.pop("to")]
        parts.append(frame.assign(run=name))
    return pd.concat(parts, ignore_index=True)


def class_rates(samplers, *, draws: str = "all") -> pd.DataFrame:
    """Return sampler, class, group, count, rate, relative, ratio.

    A rate is the images with the class per sampled image, also relative to the geometric mean of
    its group; ratio is the largest over the smallest in the group.

    Args:
        samplers: one or several, or name -> sampler; or labels, which uniform, class-aware and
            group sampling then sample.
        draws: ``"all"``; or ``"own"``, only what is sampled for the group of the class (by a
            sampler that samples for groups).
    """
    if draws not in ("all", "own"):
        raise InputError(f"draws={draws!r} is unknown; give all or own")
    from ltml.core.sampler import SAMPLERS

    if isinstance(samplers, LabelMatrix):
        kinds = ("uniform", "class-aware", "group")
        samplers = {name: SAMPLERS[name](samplers, batch_size=64) for name in kinds}
    names = {kind: name for name, kind in SAMPLERS.items()}
    found = named(samplers, lambda each: names.get(type(each), type(each).__name__))
    for each in found.values():
        if not hasattr(each, "image_probabilities"):
            kind = type(each).__name__
            raise InputError(f"a sampler is of type {kind}; give samplers, or a LabelMatrix")
    parts = {name: _rates_of(sampler, draws) for name, sampler in found.items()}
    last = next(reversed(parts.values()))
    frame = _together({name: table.assign(sampler=name) for name, table in parts.items()})
    frame["group"] = frame["class"].map(last.set_index("class").group)
    by_group = frame.groupby(["sampler", "group"]).rate
    middle = by_group.transform(lambda rate: np.exp(np.log(rate).mean()))
    ratio = by_group.transform(largest_over_smallest)
    return frame.assign(relative=frame.rate / middle, ratio=ratio)


def ablation(table: pd.DataFrame) -> pd.DataFrame:
    """Return name, group, mean, deviation, seeds of each setting of an ablation's table."""
    names = table.sampler + " · " + table.loss + " · " + table.diversity
    for column in ("backbone", "classifier", "size"):  # of photos; said where it differs
        if column in table and table[column].nunique() > 1:
            names += " · " + table[column].astype(str)
    long = table.assign(name=names).melt("name", ["mAP", *GROUPS], "group", "percent")
    by = long.groupby(["name", "group"], sort=False, as_index=False).percent
    return by.agg(mean="mean", deviation="std", seeds="size")


def diversity(records, *, measure: str = "vendi", split: str = "test", size: int | None = None):
    """Return run, class, group, count, split, measure, size, recorded, value, error.

    Args:
        records: a feature record or several, or runs that hold one, or tables of
            :meth:`ltml.FeatureRecord.diversity` by name, which have a measure, split and size
            already.
        measure: a name of :data:`ltml.core.metrics.DIVERSITY`.
        split: ``"train"`` or ``"test"``.
        size: images in a sample; default: what the smallest class of all records allows.
    """
    found = {name: _record_of(item) for name, item in named(records).items()}
    sizes = [item.common_size for item in found.values() if not isinstance(item, pd.DataFrame)]
    options = {"measure": measure, "split": split, "size": size or min(sizes, default=None)}
    for name, item in found.items():
        table = item if isinstance(item, pd.DataFrame) else item.diversity(**options)
        found[name] = table.assign(run=name)
    return _together(found)


def _record_of(item):
    """Return a run's record of features; what is one, or a table of one, as it is."""
    if not hasattr(item, "per_class"):
        return item
    from ltml.runs.features import FeatureRecord

    return FeatureRecord.load(item)


def _recorded(runs) -> dict:
    found = runs_of(runs)
    for name, run in found.items():
        if run.per_class[["grad_pos", "grad_neg"]].isna().all(axis=None):
            raise InputError(f"run {name!r} holds no record of its gradients; train it again")
    return found


def _together(parts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Put tables below one another, which must be of the same classes."""
    (first, table), *others = parts.items()
    for name, other in others:
        if set(other["class"]) != set(table["class"]):
            raise InputError(f"{first!r} and {name!r} have different classes; give one data set")
    return pd.concat(parts.values(), ignore_index=True)


def _by_count(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["count", "class"], ascending=[False, True], ignore_index=True)


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


def _rates_of(sampler, draws: str) -> pd.DataFrame:
    """Return class, group, count, rate, group by group; classes of no group last."""
    labels, group = sampler.labels, np.full(sampler.labels.num_classes, "", dtype=object)
    rate = labels.rates(sampler.image_probabilities())
    own = sampler.group_probabilities() if draws == "own" else {}
    for name, classes in sampler.groups.items():
        group[classes] = name
        if name in own:
            rate[classes] = labels.rates(own[name])[classes]
    rate = np.where(labels.counts > 0, rate, np.nan)  # no place on a logarithmic axis
    columns = {"group": group, "count": labels.counts, "rate": rate}
    table = _by_count(pd.DataFrame({"class": labels.class_names} | columns))
    place = {name: i for i, name in enumerate(sampler.groups)}
    order = table.group.map(place).fillna(len(place)).argsort(kind="stable")
    return table.iloc[order].reset_index(drop=True)
