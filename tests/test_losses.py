import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.losses import (
    LOSSES,
    AsymmetricLoss,
    BinaryCrossEntropy,
    ClassBalancedLoss,
    DistributionBalancedLoss,
    EQLv2,
    FocalLoss,
    WeightedBCE,
    make_loss,
)

COUNTS = np.array([90, 30, 8, 1, 0, 100])  # a class never seen, and one always
N, C, B = 100, len(COUNTS), 7


@pytest.fixture(scope="module")
def labels() -> LabelMatrix:
    return LabelMatrix(np.arange(N)[:, None] < COUNTS)


def batch(dtype=torch.float64, seed=0, soft=False):
    rng = np.random.default_rng(seed)
    z = torch.tensor(rng.normal(0, 2, (B, C)), dtype=dtype, requires_grad=True)
    y = rng.random((B, C)) if soft else rng.random((B, C)) < 0.4
    y[0] = 0  # an image without labels
    return z, torch.tensor(y, dtype=dtype)


# Each loss written again from its paper, in plain numpy: mean over images and classes.


def np_bce(p, y, positive=1.0, negative=1.0):
    return np.mean(-positive * y * np.log(p) - negative * (1 - y) * np.log(1 - p))


def np_weighted(p, y):
    odds = [10 / 90, 70 / 30, 92 / 8, 99, 100, 1 / 100]
    return np_bce(p, y, positive=np.array(odds))


def np_class_balanced(p, y, beta=0.999):
    effective = np.array([(1 - beta**n) / (1 - beta) for n in [90, 30, 8, 1, 1, 100]])
    w = 1 / effective / np.sum(1 / effective) * C
    return np_bce(p, y, w, w)


def np_focal(p, y, gamma=2):
    p_t = np.where(y == 1, p, 1 - p)
    return np.mean(-((1 - p_t) ** gamma) * np.log(p_t))


def np_asl(p, y, gamma_neg=4, gamma_pos=0, clip=0.05):
    p_m = np.maximum(p - clip, 0)
    negative = -(p_m**gamma_neg) * np.log(1 - p_m)
    return np.mean(np.where(y == 1, -((1 - p) ** gamma_pos) * np.log(p), negative))


def np_db(p, y, alpha=0.1, beta=10, mu=0.3, kappa=0.05, lam=5):
    z, total = np.log(p / (1 - p)), 0.0
    n = np.maximum(COUNTS, 1)
    without = np.maximum(N - COUNTS, 1)
    for i in range(len(z)):
        for c in range(C):
            share = sum(1 / n[j] for j in range(C) if y[i, j])
            r = 1 / n[c] / share if share else np.inf
            w = alpha + 1 / (1 + np.exp(-beta * (r - mu)))
            shifted = z[i, c] - kappa / lam * np.log(without[c] / n[c])
            positive, negative = np.log1p(np.exp(-shifted)), np.log1p(np.exp(lam * shifted)) / lam
            total += w * (positive if y[i, c] else negative)
    return total / z.size


REFERENCES = {
    "bce": (BinaryCrossEntropy(), np_bce),
    "weighted-bce": (WeightedBCE(COUNTS, N), np_weighted),
    "class-balanced": (ClassBalancedLoss(COUNTS, N), np_class_balanced),
    "focal": (FocalLoss(), np_focal),
    "focal 0.5": (FocalLoss(gamma=0.5), lambda p, y: np_focal(p, y, 0.5)),
    "asl": (AsymmetricLoss(), np_asl),
    "asl 1": (AsymmetricLoss(gamma_pos=1), lambda p, y: np_asl(p, y, gamma_pos=1)),
    "asl clip 0": (
        AsymmetricLoss(gamma_neg=3, clip=0),
        lambda p, y: np_asl(p, y, gamma_neg=3, clip=0),
    ),
    "asl gamma 0": (AsymmetricLoss(gamma_neg=0), lambda p, y: np_asl(p, y, gamma_neg=0)),
    "db": (DistributionBalancedLoss(COUNTS, N), np_db),
    "db coco": (
        DistributionBalancedLoss(COUNTS, N, mu=0.2, lam=2),
        lambda p, y: np_db(p, y, mu=0.2, lam=2),
    ),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_value_is_that_of_the_paper_and_gradient_that_of_the_value(case):
    loss, reference = REFERENCES[case]
    z, y = batch()
    p = 1 / (1 + np.exp(-z.detach().numpy()))
    # Buffers are float32, so weights carry its rounding.
    assert loss.double()(z, y).item() == pytest.approx(reference(p, y.numpy()), rel=1e-6)
    assert gradcheck(loss, (z, y))
    assert gradcheck(loss, batch(soft=True))


def test_distribution_balanced_loss_of_soft_targets_is_the_mixture():
    loss = DistributionBalancedLoss(COUNTS, N).double()
    z, y = batch(soft=True)
    inverse = 1 / torch.tensor(np.maximum(COUNTS, 1)).double()
    share = inverse / (y * inverse).sum(1, keepdim=True)
    w = 0.1 + torch.sigmoid(10 * (share - 0.3))
    shifted = z - loss.shift
    positive, negative = F.softplus(-shifted), F.softplus(5 * shifted) / 5
    expected = (w * (y * positive + (1 - y) * negative)).mean()
    torch.testing.assert_close(loss(z, y), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("loss", "gradient"),
    [
        (BinaryCrossEntropy(), lambda p, y: p - y),
        (
            FocalLoss(),
            lambda p, y: np.where(
                y == 1,
                -((1 - p) ** 2) * (1 - p - 2 * p * np.log(p)),
                p**2 * (p - 2 * (1 - p) * np.log(1 - p)),
            ),
        ),
        (
            AsymmetricLoss(gamma_pos=1, clip=0),
            lambda p, y: np.where(
                y == 1,
                -(1 - p) * (1 - p - p * np.log(p)),
                p**4 * (p - 4 * (1 - p) * np.log(1 - p)),
            ),
        ),
    ],
    ids=["bce", "focal", "asl"],
)
def test_gradient_is_the_closed_form(loss, gradient):
    z, y = batch()
    (3 * loss(z, y)).backward()
    p = z.detach().sigmoid().numpy()
    np.testing.assert_allclose(z.grad, 3 * gradient(p, y.numpy()) / z.numel(), rtol=1e-10)


def test_exponents_of_zero_are_bce():
    z, y = batch(soft=True)
    plain = BinaryCrossEntropy()(z, y)
    torch.testing.assert_close(FocalLoss(gamma=0)(z, y), plain)
    torch.testing.assert_close(AsymmetricLoss(gamma_neg=0, clip=0)(z, y), plain)
    torch.testing.assert_close(ClassBalancedLoss(COUNTS, N, beta=0)(z, y), plain)


def test_asl_drops_easy_negatives():
    z = torch.full((1, 2), math.log(0.04 / 0.96), requires_grad=True)
    AsymmetricLoss(gamma_neg=0)(z, torch.tensor([[0.0, 1.0]])).backward()
    assert z.grad[0, 0] == 0
    assert z.grad[0, 1] < 0


def test_eql_v2_follows_the_accumulated_ratio():
    loss, totals = EQLv2(C), np.zeros((2, C))
    assert loss.weights[0].equal(torch.ones(C))
    for seed in range(4):
        z, y = batch(seed=seed)
        p, target = z.detach().sigmoid().numpy(), y.numpy()
        seen = totals[1] > 0
        g = np.divide(totals[0], totals[1], where=seen, out=np.full(C, np.inf))
        f = 1 / (1 + np.exp(-12 * (g - 0.8)))
        positive, negative = 1 + 4 * (1 - f), f
        assert loss(z, y).item() == pytest.approx(np_bce(p, target, positive, negative), rel=1e-5)
        totals += [
            (target * positive * (1 - p)).sum(0),
            ((1 - target) * negative * p).sum(0),
        ]
        np.testing.assert_allclose(loss.totals, totals, rtol=1e-5)
    assert gradcheck(loss.eval(), batch())
    np.testing.assert_allclose(loss.totals, totals, rtol=1e-5)  # eval rests


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss(name, labels, tmp_path):
    loss = make_loss(name, labels)
    z, y = batch(torch.float32)
    for _ in range(3):
        value = loss(z, y)
    assert value.shape == ()
    assert value > 0
    value.backward()
    assert z.grad.isfinite().all()
    # A step downhill raises the logits of positives and lowers those of negatives.
    assert (z.grad[y == 1] <= 0).all()
    assert (z.grad[y == 0] >= 0).all()
    # Types of targets, and eval mode, which leaves the state alone.
    loss.eval()
    state = copy.deepcopy(loss.state_dict())
    value = loss(z, y)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float64):
        assert loss(z, y.to(dtype)).equal(value)
    for key, tensor in loss.state_dict().items():
        assert tensor.equal(state[key])
    # Save and load.
    torch.save(state, tmp_path / "loss.pt")
    other = make_loss(name, labels)
    other.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    for _ in range(3):
        assert other.train()(z, y).equal(loss.train()(z, y))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("dtype", "extreme"), [(torch.float32, 1e4), (torch.bfloat16, 60), (torch.float16, 6e4)]
)
def test_extremes_are_stable(name, dtype, extreme, labels):
    loss = make_loss(name, labels)
    targets = torch.tensor([[0, 1, 0, 1, 0.5, 1], [1, 0, 0, 1, 1, 0]])
    for y in (targets, torch.zeros(2, C), torch.ones(2, C)):
        for sign in (1, -1):
            z = (sign * extreme * torch.tensor([[1.0, -1, 1, -1, 1, 0]])).expand(2, C).to(dtype)
            z.requires_grad_()
            for _ in range(2):
                value = loss(z, y)
                (gradient,) = torch.autograd.grad(value, z)
                assert value.isfinite()
                assert value.dtype == torch.float32
                assert gradient.isfinite().all()
                assert gradient.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_in_float32(name, labels):
    z, y = batch(torch.bfloat16)
    expected = make_loss(name, labels)(z.float(), y.float())
    with torch.autocast("cpu", torch.bfloat16):
        value = make_loss(name, labels)(z, y)
    assert value.dtype == torch.float32
    assert value.equal(expected)


# One of each way to a gradient is fast: torch's own, a closed form, with weights that follow it.
COMPILED = [
    name if name in ("bce", "asl", "dgb") else pytest.param(name, marks=pytest.mark.slow)
    for name in LOSSES
]


def of_torch_2_6(test):
    """Let the compiler of older versions warn of what it does itself."""
    for warning in (
        "ignore:.*should not be instantiated:DeprecationWarning",
        "ignore:.*param_schemas:FutureWarning",
    ):
        test = pytest.mark.filterwarnings(warning)(test)
    return test


@of_torch_2_6
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_without_graph_breaks(name, labels):
    plain, loss = make_loss(name, labels), make_loss(name, labels)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        (z, y), (z2, _) = batch(torch.float32, seed), batch(torch.float32, seed)
        plain(z, y).backward()
        compiled(z2, y).backward()
        torch.testing.assert_close(z2.grad, z.grad)
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(loss.state_dict()[key], tensor)
    torch.compiler.reset()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shape_and_targets_give_a_finite_descent(data):
    b, c = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scale = data.draw(st.sampled_from([0.1, 1, 30, 1000]))
    labels = LabelMatrix(rng.random((data.draw(st.integers(1, 20)), c)) < rng.random(c))
    y = torch.tensor(rng.random((b, c)) < rng.random(c)).float()
    for name in LOSSES:
        z = torch.tensor(rng.normal(0, scale, (b, c)), dtype=torch.float32, requires_grad=True)
        value = make_loss(name, labels)(z, y)
        value.backward()
        assert value.isfinite()
        assert value >= 0
        assert z.grad.isfinite().all()
        assert (z.grad * (0.5 - y) >= -1e-6).all()  # rounding in torch's pos_weight


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_are_those_of_torch(name, labels):
    """Sum and mean of the elements, with the same gradients; each loss sees three batches."""
    losses = {r: make_loss(name, labels, reduction=r).double() for r in ("none", "mean", "sum")}
    for seed in range(3):
        z, y = batch(seed=seed)
        found = {reduction: loss(z, y) for reduction, loss in losses.items()}
        assert found["none"].shape == z.shape
        for reduction in ("mean", "sum"):
            expected = getattr(found["none"], reduction)()
            torch.testing.assert_close(found[reduction], expected)
            wanted = torch.autograd.grad(expected, z, retain_graph=True)
            torch.testing.assert_close(torch.autograd.grad(found[reduction], z), wanted)
    with pytest.raises(InputError, match="reduction is 'median'; did you mean 'mean'"):
        make_loss(name, labels, reduction="median")


def unknown_batch(seed=0, dtype=torch.float64, soft=False):
    """A batch, and the same with NaN where unknown: some entries, a whole class, a whole image."""
    z, y = batch(dtype, seed, soft)
    unknown = torch.rand(B, C, generator=torch.Generator().manual_seed(seed)) < 0.4
    unknown[:, 1] = unknown[2] = True
    return z, y, y.masked_fill(unknown, math.nan), ~unknown


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_unknown_entries_cost_nothing(name, soft, labels):
    """The elements of the full batch, known ones alone, by autograd in float64."""
    masked = {r: make_loss(name, labels, reduction=r).double() for r in ("none", "mean", "sum")}
    full = make_loss(name, labels, reduction="none").double()
    for loss in masked.values():
        loss(*batch())  # averages to weight by
    full.load_state_dict(masked["none"].state_dict())
    for loss in (*masked.values(), full):
        loss.eval()
    z, y, partial, known = unknown_batch(soft=soft)
    y = y.where(known, 0.0) if name == "db" else y  # its weights: unknown is not positive
    elements = full(z, y)[known]
    for reduction, loss in masked.items():
        found = loss(z, partial)
        (gradient,) = torch.autograd.grad(found.sum(), z)
        assert gradient[~known].eq(0).all()
        wanted = elements.mean() if reduction == "mean" else elements.sum()
        if reduction == "none":
            assert found[~known].eq(0).all()
            torch.testing.assert_close(found[known], elements)
        else:
            torch.testing.assert_close(found, wanted)
        (expected,) = torch.autograd.grad(wanted, z, retain_graph=True)
        torch.testing.assert_close(gradient[known], expected[known])


@pytest.mark.parametrize("name", ["eql-v2", "dgb", "dgb-focal", "dgb-asl"])
def test_statistics_are_of_known_entries(name, labels):
    """A batch with unknown entries moves the averages as its known entries alone do."""
    loss, plain = make_loss(name, labels).double(), make_loss(name, labels).double()
    if name != "eql-v2":
        loss.strength = plain.strength = 0.0  # gradients of the base
    z, y, partial, known = unknown_batch()
    weights = torch.lerp(*plain.eval().weights.flip(0).unbind(), y) if name == "eql-v2" else 1.0
    plain.reduction = "sum"
    (gradient,) = torch.autograd.grad(plain(z, y), z)
    magnitude = (gradient.abs() * known).detach()
    expected = torch.stack([(magnitude * y).sum(0), (magnitude * (1 - y)).sum(0)])
    loss(z, partial)
    found = loss.totals if name == "eql-v2" else loss.magnitudes / (1 - loss.momentum)
    torch.testing.assert_close(found, expected * 1.0)
    assert isinstance(weights, float) or weights.eq(1).all()  # before the first batch
    assert found[:, 1].eq(0).all()  # no known entry of this class
    assert loss.weights.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_nothing_known_costs_nothing(name, dtype, labels):
    loss = make_loss(name, labels)
    before = copy.deepcopy(loss.state_dict())
    for _ in range(2):
        z = torch.randn(3, C, dtype=dtype).requires_grad_()
        value = loss(z, torch.full((3, C), math.nan))
        value.backward()
        assert value == 0
        assert z.grad.eq(0).all()
    assert all(tensor.equal(before[key]) for key, tensor in loss.state_dict().items())
    assert loss(*batch(torch.float32)).isfinite()


def test_usual_masks_are_the_same():
    """The field's NaN mask, and the modes of partial labels of ASL's authors, as formulas."""
    z, _, partial, _ = unknown_batch()
    mask = torch.isnan(partial)
    usual = F.binary_cross_entropy_with_logits(z, partial.nan_to_num(0), reduction="none")
    expected = usual[~mask].mean()
    torch.testing.assert_close(BinaryCrossEntropy()(z, partial), expected)
    p = z.sigmoid()
    p_m = (p - 0.05).clamp(min=0)
    positive, negative = -p.log(), -(p_m**4) * (1 - p_m).log()
    ignore = torch.where(partial == 1, positive, negative * (partial == 0))
    torch.testing.assert_close(AsymmetricLoss(reduction="sum")(z, partial), ignore.sum())
    as_negative = torch.where(partial == 1, positive, negative)
    filled = partial.nan_to_num(0.0)
    torch.testing.assert_close(AsymmetricLoss(reduction="sum")(z, filled), as_negative.sum())


@of_torch_2_6
@pytest.mark.parametrize("name", COMPILED)
def test_unknown_compiles_without_graph_breaks(name, labels):
    plain, loss = make_loss(name, labels), make_loss(name, labels)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    z, _, partial, _ = unknown_batch(dtype=torch.float32)
    z2 = z.detach().clone().requires_grad_()
    plain(z, partial).backward()
    compiled(z2, partial).backward()
    torch.testing.assert_close(z2.grad, z.grad)
    torch.compiler.reset()


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), FocalLoss(), AsymmetricLoss()])
def test_reduction_is_the_mean_over_images_and_classes(loss):
    z, y = batch()
    one = [loss(z[i : i + 1, [c]], y[i : i + 1, [c]]) for i in range(B) for c in range(C)]
    torch.testing.assert_close(torch.stack(one).mean(), loss(z, y))


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(2, C), torch.zeros(3, C), r"targets has shape \(3, 6\) but logits \(2, 6\)"),
        (
            torch.zeros(C),
            torch.zeros(C),
            r"logits has shape \(6,\), but the loss takes \(im",
        ),
        (torch.zeros(0, C), torch.zeros(0, C), "at least one image"),
        (torch.zeros(2, 3), torch.zeros(2, 3), r"shape \(2, 3\), but the loss takes \(images, 6\)"),
        (torch.zeros(2, C), torch.full((2, C), 1.5), "targets holds 1.5 at image 0, class 0"),
        (torch.zeros(2, C), torch.full((2, C), -1), "targets holds -1 at"),
        (torch.zeros(2, C), torch.full((2, C), math.inf), "targets holds inf at"),
        (
            torch.zeros(2, C),
            torch.tensor([[math.nan] * C, [2.0] * C]),
            "targets holds 2 at image 1",
        ),
        (
            torch.tensor([[0.0] * C, [0, 0, math.nan, 0, 0, 0]]),
            torch.zeros(2, C),
            "logits holds nan at image 1, class 2; lower the learning rate",
        ),
    ],
)
def test_bad_batches_are_named_and_leave_the_state_finite(logits, targets, message, labels):
    loss = make_loss("eql-v2", labels)
    loss(*batch(torch.float32))
    with pytest.raises(InputError, match=message):
        loss(logits, targets)
    assert loss(*batch(torch.float32)).isfinite()
    assert loss.totals.isfinite().all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bse", {}, "loss 'bse' is unknown; did you mean 'bce'"),
        ("db", {"mue": 0.2}, "loss 'db' has no option 'mue'; did you mean 'mu'"),
        ("db", {"num_images": 3}, "loss 'db' has no option 'num_images'"),
        ("dgb-focal", {"base": "bce"}, "loss 'dgb-focal' has no option 'base'"),
        ("asl", {"clip": 1}, "loss 'asl': clip is 1; give a number, 0 <= clip < 1"),
        ("class-balanced", {"beta": 1}, "beta is 1; give a number, 0 <= beta < 1"),
        ("db", {"lam": 0}, "lam is 0; give a number, 0.001 <= lam"),
    ],
)
def test_bad_names_and_options_are_named(name, options, message, labels):
    with pytest.raises(InputError, match=message):
        make_loss(name, labels, **options)


def test_options_reach_the_loss(labels):
    loss = make_loss("db", labels, mu=0.2, lam=2)
    assert (loss.mu, loss.lam) == (0.2, 2)
    assert make_loss("dgb-focal", labels, strength=1).base == "focal"


def test_counts_may_be_a_tensor():
    weight = WeightedBCE(torch.tensor([1, 3]), 4).positive_weight
    torch.testing.assert_close(weight, torch.tensor([3, 1 / 3]))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("wrong", [np.zeros((4, 5)), [[0.0] * 5] * 4, None, "logits"])
def test_what_is_no_tensor_is_refused(name, labels, wrong):
    loss, right = make_loss(name, labels), torch.zeros(4, labels.num_classes)
    with pytest.raises(InputError, match=r"logits is of type \w+; give a tensor"):
        loss(wrong, right)
    with pytest.raises(InputError, match=r"targets is of type \w+; give a tensor"):
        loss(right, wrong)
