"""The shared-covariance classifier: a linear classifier of every class, in closed form."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ltml.core.errors import InputError

SHRINKAGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_MOST = 1e14  # multiplications for covariances of single classes: about an hour of one core

log = logging.getLogger(__name__)


class _Alike(NamedTuple):
    """Classes that are known in the same rows.

    Args:
        classes: ``(K,)`` their numbers.
        count: number of these rows.
        known: ``(M,)`` bool: which of the kept images are among them.
    """

    classes: Tensor | slice
    count: Tensor
    known: Tensor | None


class SharedCovariance:
    r"""Classify features linearly by class means and by the covariance that all classes share.

    A class of five images cannot say in which directions its images vary; all classes together can.
    Of features :math:`x = f / \lVert f \rVert`, with mean :math:`m` and covariance :math:`S` over
    all :math:`N` rows, and :math:`m_c^+, m_c^-` the means of those with and without class
    :math:`c`, a share :math:`\pi_c` of them with it,

    .. math::
        w_c = (S + \rho I)^{-1} d_c, \qquad d_c = m_c^+ - m_c^-, \qquad
        \rho = \text{shrinkage} \cdot \operatorname{tr}(S) / D .

    This is also ridge regression: the 0/1 labels :math:`Y` regressed on the centred rows :math:`X`
    with strength :math:`N \rho` have the coefficients :math:`\pi_c (1 - \pi_c) w_c`, since
    :math:`X^\top Y_c = N \pi_c (1 - \pi_c) d_c`. Its fitted values are linear in the labels,

    .. math::
        \hat Y = H Y, \qquad H = \tfrac{1}{N} \mathbf 1 \mathbf 1^\top
        + \tfrac{1}{N} X (S + \rho I)^{-1} X^\top ,

    so that a fit without the rows :math:`g` of one image (its views) would predict
    :math:`Y_g - (I - H_{gg})^{-1} (Y_g - \hat Y_g)` for them. No refit is needed, and after one
    eigendecomposition of :math:`S` each value of the shrinkage costs a matrix product.

    Where labels are unknown, each class is regressed on the :math:`N_c` rows where it is known, as
    if there were no others: its means, share and covariance :math:`S_c` are over them, and its
    strength is :math:`N_c \rho`. (The mean of a few known rows has errors in just those directions
    in which :math:`S_c` is large and a covariance of other rows is not.) Classes that are known in
    the same rows share one :math:`S_c`. Where the covariances of many classes would take too long,
    which is logged, all classes take :math:`S`.

    Sums are kept, in float64, so features can be streamed and sums of several processes added; of
    images with unknown labels, the features are kept too.

    Attributes:
        left_out: after :meth:`calibrate`, the calibrated logits ``(B, V, C)`` of each image by a
            fit without it.

    Args:
        num_classes: ``C``.
        dim: ``D``.
        normalize: scale every feature to length 1; False fits a layer that is fed plain features.
        device: device of the sums; it must have float64 (MPS has none).

    References:
        | Regularized Discriminant Analysis (Friedman, JASA 1989),
          https://doi.org/10.1080/01621459.1989.10478752
        | A Hard-to-Beat Baseline for Training-Free CLIP-Based Adaptation (Wang et al., ICLR 2024),
          https://arxiv.org/abs/2402.04087

    Example:
        >>> x, y = torch.randn(60, 2, 8), torch.rand(60, 3) < 0.2  # an image and its mirror
        >>> classifier = SharedCovariance(3, 8)
        >>> classifier.update(x, y)
        >>> shrinkage = classifier.choose_shrinkage(x, y)
        >>> weight, bias = classifier.calibrate(x, y, shrinkage)
        >>> weight.shape, bias.shape
        (torch.Size([3, 8]), torch.Size([3]))
    """

    def __init__(self, num_classes: int, dim: int, *, normalize: bool = True, device="cpu"):
        self.num_classes, self.dim, self.normalize = num_classes, dim, normalize
        C, D = num_classes, dim
        # Rows; positives; sum; sums of positives; moment; unknown rows of each class; their sums.
        shapes = ((), (C,), (D,), (C, D), (D, D), (C,), (C, D))
        self._found = {}  # what was derived from the sums, until they change
        self._sums = [torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes]
        self._kept = []  # images with unknown labels: features (B, V, D), and which are known

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a batch.

        Args:
            features: ``(B, D)``, or ``(B, V, D)`` with ``V`` views of each image; any precision.
            targets: ``(B, C)`` of 0 and 1, or NaN where unknown.

        Raises:
            InputError: if a shape is wrong, or a value is not finite or no target.
        """
        x, y, known = self._rows(features, targets)
        self._found.clear()
        rows, of_image = x.flatten(0, 1), x.sum(1)
        count, positives, total, of_class, moment, unknown, of_unknown = self._sums
        count += len(rows)
        positives += x.shape[1] * y.sum(0)
        total += rows.sum(0)
        of_class.addmm_(y.mT, of_image)
        moment.addmm_(rows.mT, rows)
        if known is not None:
            unknown += x.shape[1] * (~known).sum(0)
            of_unknown.addmm_((~known).double().mT, of_image)
            some = ~known.all(1)
            part = torch.as_tensor(features).detach().to(x.device)[some]
            self._kept.append((part.reshape(len(part), -1, self.dim), known[some]))

    def merge(self, other: "SharedCovariance") -> None:
        """Add the sums of other images."""
        self._found.clear()
        for total, part in zip(self._sums, other._sums, strict=True):
            total += part.to(total.device)
        self._kept += [tuple(part.to(total.device) for part in kept) for kept in other._kept]

    def all_reduce(self) -> None:
        """Add up the sums of all processes, in all of them."""
        self._found.clear()
        for total in self._sums:
            dist.all_reduce(total)
        everywhere = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, [[part.cpu() for part in kept] for kept in self._kept])
        self._kept = [
            tuple(part.to(total.device) for part in kept) for kept in itertools.chain(*everywhere)
        ]

    @property
    def mean(self) -> Tensor:
        """Mean feature ``(D,)``."""
        return self._sums[2] / self._sums[0]

    @property
    def covariance(self) -> Tensor:
        """``(D, D)``."""
        # Raw moments: of unit vectors, in float64, the difference loses nothing that matters.
        return self._sums[4] / self._sums[0] - self.mean.outer(self.mean)

    @property
    def one_sided(self) -> list[int]:
        """Classes with only known negatives or positives, which get a weight of zero."""
        positives = self._sums[1]
        return ((positives == 0) | (positives == self._known)).nonzero().flatten().tolist()

    @property
    def _known(self) -> Tensor:
        """Rows of which it is known whether they hold each class ``(C,)``."""
        return self._sums[0] - self._sums[5]

    @property
    def _known_mean(self) -> Tensor:
        """Mean feature of these rows ``(C, D)``, 0 where there are none."""
        return (self._sums[2] - self._sums[6]) / self._known.clamp(min=1).unsqueeze(1)

    def solve(self, shrinkage: float) -> tuple[Tensor, Tensor]:
        """Return weight ``(C, D)`` and bias ``(C,)``; a score is 0 halfway between both means.

        Raises:
            InputError: if no feature was added, or the covariance is singular.
        """
        share, spread, covariance = self._classes()
        difference = covariance / spread.unsqueeze(1)  # (C, D), of the means
        rho = shrinkage * self.covariance.trace() / self.dim
        weight = torch.zeros_like(difference)
        for group in self._groups() or [_Alike(slice(None), self._sums[0], None)]:
            S = self._covariance_of(group)
            S.diagonal().add_(rho)
            factor, failed = torch.linalg.cholesky_ex(S)
            if failed:
                raise InputError(
                    f"shrinkage={shrinkage}: the covariance of {int(group.count)} features in "
                    f"{self.dim} dimensions is singular; give a larger shrinkage"
                )
            weight[group.classes] = torch.cholesky_solve(difference[group.classes].mT, factor).mT
        middle = self._known_mean + (0.5 - share).unsqueeze(1) * difference
        return weight, -(weight * middle).sum(1)

    def calibrate(
        self, features: Tensor, targets: Tensor, shrinkage: float
    ) -> tuple[Tensor, Tensor]:
        """Return weight and bias whose sigmoid is a probability.

        Rows are those of :meth:`solve`; each class's scale and bias are fitted by logistic
        regression, with Platt's smoothed targets, on the leave-one-out scores of all images. Fitted
        scores would make it far too sure of rare classes.
        """
        (scores,) = self.leave_one_out(features, targets, [shrinkage])  # (B, V, C)
        y = torch.as_tensor(targets).to(scores).unsqueeze(1).expand_as(scores)
        known = (~y.isnan()).to(scores)
        y = y.nan_to_num(0)
        count = known.sum((0, 1)).clamp(min=1)

        def mean(values: Tensor) -> Tensor:
            return (known * values).sum((0, 1)) / count

        positives = y.sum((0, 1))
        wanted = y * (positives + 1) / (positives + 2) + (1 - y) / (count - positives + 2)
        share, spread, _ = self._classes()
        variance = mean((scores - mean(scores)).square()) * count / (count - 1).clamp(min=1)
        deviation = variance.sqrt().clamp(min=1e-12)
        scores = (scores - share) / deviation
        slope, offset = torch.zeros_like(share), mean(wanted).clamp(1e-12, 1 - 1e-12).logit()
        for _ in range(20):  # Newton's method, for all classes at once
            p = (slope * scores + offset).sigmoid()
            error, curvature = p - wanted, p * (1 - p)
            g0, g1 = mean(error), mean(error * scores)
            h0, h1, h2 = (mean(curvature * scores**k) for k in range(3))
            determinant = (h0 * h2 - h1 * h1).clamp(min=1e-300)  # 0 in one-sided classes
            step = torch.stack([h0 * g1 - h1 * g0, h2 * g0 - h1 * g1]) / determinant
            # A logit that moves by r changes its curvature e^r-fold at most: this never overshoots.
            r = (known * (step[0] * scores + step[1])).abs().amax((0, 1)).clamp(min=1e-12)
            slope, offset = torch.stack([slope, offset]) - step * r.log1p() / r
        # Where scores left out say nothing, the sign of their slope is chance: never reverse ranks.
        slope = slope.clamp(min=0.01)
        self.left_out = slope * scores + offset
        weight, _ = self.solve(shrinkage)
        weight *= (slope * spread / deviation).unsqueeze(1)
        return weight, offset - (weight * self._known_mean).sum(1)

    def leave_one_out(
        self, features: Tensor, targets: Tensor, shrinkages: Sequence[float]
    ) -> Iterator[Tensor]:
        """Yield, for each shrinkage, what a regression without each image predicts for it.

        Args:
            features: ``(B, D)`` or ``(B, V, D)`` of images that were added, all or some of them.
                The views of an image are left out together.
            targets: ``(B, C)``, NaN where unknown.
            shrinkages: positive.

        Yields:
            ``(B, V, C)``, about 0 without and 1 with the class.
        """
        x, y, known = self._rows(features, targets)
        share, _, covariance = self._classes()
        groups, unknown = self._groups(), self._sums[5].any()
        if groups is not None:
            yield from self._left_out_alike(groups, x, y, known, shrinkages)
            return
        variance, axes = self._eigen()
        x, y, covariance = (x - self.mean) @ axes, y.unsqueeze(1), covariance @ axes
        eye = torch.eye(x.shape[1]).to(x)
        known = torch.ones_like(y) if known is None else known.unsqueeze(1).to(y)
        for shrinkage in shrinkages:
            inverse = 1 / (variance.clamp(min=0) + shrinkage * variance.mean())
            if unknown:
                yield self._left_out(x, y, known, inverse)
                continue
            scaled = x * inverse  # (B, V, D)
            hat = (1 + scaled @ x.mT) / self._sums[0]  # (B, V, V)
            fitted = share + scaled @ covariance.mT
            yield y - torch.linalg.solve(eye - hat, y - fitted)

    def _left_out_alike(
        self,
        groups: list[_Alike],
        x: Tensor,
        y: Tensor,
        known: Tensor | None,
        shrinkages: Sequence[float],
    ) -> Tensor:
        """Predict by a regression of each class on the rows where it is known.

        Args:
            groups: groups of classes.
            x: ``(B, V, D)`` rows.
            y: ``(B, C)``, 0 where unknown.
            known: ``(B, C)`` bool; None: all.
            shrinkages: positive.

        Returns:
            ``(len(shrinkages), B, V, C)``.
        """
        share, _, covariance = self._classes()
        rho = self.covariance.trace() / self.dim
        known = torch.ones_like(y, dtype=torch.bool) if known is None else known
        B, V, _ = x.shape
        out = share.expand(len(shrinkages), B, V, -1).clone()
        for group in groups:
            classes = group.classes
            labels, fitted_with = y[:, None, classes], known[:, classes]
            rows = fitted_with.any(1)
            variance, axes = self._axes_of(group)
            centred = x - self._known_mean[classes[0]]
            own = centred[rows] @ axes
            for found, shrinkage in zip(out, shrinkages, strict=True):
                inverse = 1 / (variance.clamp(min=0) + shrinkage * rho)
                weight = (covariance[classes] @ axes * inverse) @ axes.mT
                predicted = share[classes] + centred @ weight.mT
                hat = (1 + own * inverse @ own.mT) / group.count
                residual = (labels - predicted)[rows]
                residual = torch.linalg.solve(torch.eye(V).to(hat) - hat, residual)
                predicted[rows] = torch.where(
                    fitted_with[rows].unsqueeze(1), labels[rows] - residual, predicted[rows]
                )
                found[..., classes] = predicted
        return out

    def _left_out(self, x: Tensor, y: Tensor, known: Tensor, inverse: Tensor) -> Tensor:
        """Predict as :meth:`_left_out_alike`, with the covariance of all rows for every class.

        With :math:`G = I - H_{gg}`, the covariance without an image is inverted by Woodbury's
        formula, :math:`A^{-1} + A^{-1} X_g^\top G^{-1} X_g A^{-1}`, where :math:`A` is a sum.

        Args:
            x: ``(B, V, D)`` centred rows in the covariance's axes.
            y: ``(B, 1, C)``, 0 where unknown.
            known: ``(B, 1, C)`` of 0 and 1.
            inverse: ``(D,)`` inverse of what stands in for the covariance.
        """
        _, axes = self._eigen()
        share, _, covariance = self._classes()
        center = (self._known_mean - self.mean) @ axes  # (C, D), of a class's known rows
        N, V, weighted = self._sums[0], x.shape[1], covariance @ axes * inverse
        n = self._known.clamp(min=V)
        rest = (n - V).clamp(min=1)  # 0 where one image is known: such a class has no covariance
        cross = V / rest * known  # by how much means move without the image
        excess = cross * n * (y - share)

        gram = (x * inverse) @ x.mT  # (B, V, V)
        at_center = (x * inverse) @ center.mT  # (B, V, C)
        # The class's summed covariance without the image, seen from its rows and from the center.
        from_rows = (n * (x @ weighted.mT) - excess * (gram.mean(2, keepdim=True) - at_center)) / N
        squares = (center.square() * inverse).sum(1)
        moved = at_center.mean(1, keepdim=True) - squares  # (B, 1, C)
        from_center = (n * (center * weighted).sum(1) - excess * moved) / N
        left = torch.eye(V, dtype=x.dtype, device=x.device) - (1 + gram) / N
        solved = torch.linalg.solve(left, from_rows)
        from_rows = solved - solved.sum(1, keepdim=True) / N
        from_center = from_center + (at_center * solved).sum(1, keepdim=True) / N
        from_center = from_center - cross * (from_rows.mean(1, keepdim=True) - from_center)
        scale = (N - V) / torch.where(known > 0, rest, n)
        return share - cross * (y - share) + scale * (from_rows - from_center)

    def choose_shrinkage(
        self, features: Tensor, targets: Tensor, shrinkages: Sequence[float] = SHRINKAGES
    ) -> float:
        """Choose the shrinkage of least leave-one-out squared error; see :meth:`leave_one_out`."""
        y = torch.as_tensor(targets).to(self._sums[0]).unsqueeze(1)
        left_out = self.leave_one_out(features, targets, shrinkages)
        errors = torch.stack([(y - predicted).square().nanmean() for predicted in left_out])
        return shrinkages[int(errors.argmin())]

    def _eigen(self) -> tuple[Tensor, Tensor]:
        """Variances ``(D,)`` and axes ``(D, D)`` of the covariance, found once for its sums."""
        if "eigen" not in self._found:
            self._found["eigen"] = torch.linalg.eigh(self.covariance)
        return self._found["eigen"]

    def _groups(self) -> list[_Alike] | None:
        """Classes by the rows where they are known, without :attr:`one_sided` ones; None: all
        classes take the covariance of all rows."""
        if "groups" in self._found or not self._kept:
            return self._found.get("groups")
        known = torch.cat([part for _, part in self._kept])
        patterns, group_of = torch.unique(known.mT, dim=0, return_inverse=True)
        group_of[self.one_sided] = -1
        groups = []
        for i, pattern in enumerate(patterns):
            classes = (group_of == i).nonzero().flatten()
            if len(classes):
                groups.append(_Alike(classes, self._known[classes[0]], pattern))
        D = self.dim
        cost = sum(g.count.item() * D**2 + 10 * min(g.count.item(), D) ** 3 for g in groups)
        if cost > _MOST:
            log.warning(
                "%d of %d classes are known in other images than the rest: too many for a "
                "covariance each in %d dimensions, so all share that of all images",
                *(len(groups), self.num_classes, D),
            )
            groups = None
        self._found["groups"] = groups
        return groups

    def _of_group(self, group: _Alike, known: bool) -> Iterator[Tensor]:
        """Kept rows ``(R, D)``, part by part, where a group's classes are known or not."""
        parts = group.known.split([len(part) for part, _ in self._kept])
        for (part, _), wanted in zip(self._kept, parts, strict=True):
            yield self._scaled(part[wanted == known].double()).flatten(0, 1)

    def _covariance_of(self, group: _Alike) -> Tensor:
        """``(D, D)``, of the rows where a group's classes are known."""
        if group.count == self._sums[0]:
            return self.covariance
        # The fewer rows, to be added to those with no unknown label or taken from all.
        add = bool(group.known.sum() * 2 < len(group.known))
        moment = self._moment_elsewhere() if add else self._sums[4]
        moment = moment.clone()
        for rows in self._of_group(group, known=add):
            moment.addmm_(rows.mT, rows, alpha=1 if add else -1)
        mean = self._known_mean[group.classes[0]]
        return moment / group.count - mean.outer(mean)

    def _moment_elsewhere(self) -> Tensor:
        """Moment of the rows that are not kept ``(D, D)``."""
        if "elsewhere" not in self._found:
            moment = torch.zeros_like(self._sums[4])
            if not self._all_kept():
                moment += self._sums[4]
                for part, _ in self._kept:
                    rows = self._scaled(part.double()).flatten(0, 1)
                    moment.addmm_(rows.mT, rows, alpha=-1)
            self._found["elsewhere"] = moment
        return self._found["elsewhere"]

    def _all_kept(self) -> bool:
        return sum(part.shape[0] * part.shape[1] for part, _ in self._kept) == self._sums[0]

    def _axes_of(self, group: _Alike) -> tuple[Tensor, Tensor]:
        """Variances ``(R,)`` and axes ``(D, R)`` of a group's covariance, without some that are 0
        where it has fewer rows than dimensions."""
        if group.count == self._sums[0]:
            return self._eigen()
        if group.count >= self.dim or not self._all_kept():
            return torch.linalg.eigh(self._covariance_of(group))
        rows = torch.cat(list(self._of_group(group, known=True))) - self._known_mean[
            group.classes[0]
        ]  # fmt: skip
        variance, axes = torch.linalg.eigh(rows @ rows.mT / group.count)
        least = 1e-14 * variance[-1]  # axes of less are noise, and short
        return variance, rows.mT @ axes / (variance.clamp(min=least) * group.count).sqrt()

    def _scaled(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.normalize else x

    def _classes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Share and variance of each label, ``(C,)``; its covariance with features ``(C, D)``."""
        count, positives, _, of_class, *_ = self._sums
        if count == 0:
            raise InputError("no feature was added; call update first")
        known = self._known.clamp(min=1)
        share = positives / known
        spread = share * (1 - share)
        covariance = of_class / known.unsqueeze(1) - share.unsqueeze(1) * self._known_mean
        spread[self.one_sided], covariance[self.one_sided] = 1, 0  # a weight of zero, not NaN
        return share, spread, covariance

    def _rows(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Check, convert and normalise a batch: ``(B, V, D)``, ``(B, C)`` with 0 where unknown, and
        which are known if some are not."""
        device = self._sums[0].device
        x, y = (torch.as_tensor(part).detach().to(device).double() for part in (features, targets))
        x = x.unsqueeze(1) if x.ndim == 2 else x
        if x.ndim != 3 or x.shape[2] != self.dim or y.shape != (len(x), self.num_classes):
            raise InputError(
                f"features {tuple(features.shape)} and targets {tuple(targets.shape)}: give "
                f"(B, {self.dim}) or (B, V, {self.dim}), and (B, {self.num_classes})"
            )
        known = ~y.isnan()
        y = y.nan_to_num(0)
        if not x.sum().isfinite():
            raise InputError("features are infinite or NaN; check images and weights")
        if not ((y >= 0) & (y <= 1)).all():
            raise InputError(
                f"targets hold {y[(y < 0) | (y > 1)][0]:g}; give 0 or 1, or NaN for unknown"
            )
        return self._scaled(x), y, None if known.all() else known


@torch.no_grad()
def fill(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Write weight and bias into a layer of whatever device and precision."""
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
