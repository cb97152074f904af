import copy

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from ltml.core.dgb import DynamicGradientBalancing
from ltml.core.elementwise import BASES
from ltml.core.errors import InputError
from ltml.core.losses import AsymmetricLoss, FocalLoss

C = 6
RATES = torch.tensor([0.6, 0.3, 0.1, 0.05, 0.03, 0.02])  # of the positives: long-tailed


def batch(seed, size=32, dtype=torch.float32, soft=False):
    """One batch of a stream whose classes differ in rate, and in how well they are known."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.rand(size, C, generator=rng, dtype=dtype)
    y = y if soft else (y < RATES).to(dtype)
    z = torch.randn(size, C, generator=rng, dtype=dtype) + (2 * y - 1) * torch.arange(C) / 3
    return z.requires_grad_(), y


def gradient(loss, z, y):
    return torch.autograd.grad(loss(z, y), z)[0]


def entries(g, y):
    """(2, C): summed |gradient| over positives, over negatives."""
    return torch.stack([(g.abs() * y).sum(0), (g.abs() * (1 - y)).sum(0)])


def np_weights(G, strength, max_weight):
    T = G.mean()
    with np.errstate(divide="ignore"):
        w = np.clip((T / G) ** strength, 1 / max_weight, max_weight)
    return w * G.sum() / (w * G).sum()


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_bce_agrees_with_the_formula_in_numpy(strength, soft):
    loss = DynamicGradientBalancing(C, strength=strength, momentum=0.8, max_weight=5)
    G = np.zeros((2, C))
    for seed in range(5):
        z, y = batch(seed, dtype=torch.float64, soft=soft)
        p, target = z.detach().sigmoid().numpy(), y.numpy()
        pull = np.abs(p - target)
        G = 0.8 * G + 0.2 * np.stack([(target * pull).sum(0), ((1 - target) * pull).sum(0)])
        w = np_weights(G, strength, 5)
        element = target * w[0] + (1 - target) * w[1]
        value = element * -(target * np.log(p) + (1 - target) * np.log(1 - p))
        result = loss(z, y)
        assert result.item() == pytest.approx(value.mean(), rel=1e-5)
        np.testing.assert_allclose(loss.weights, w, rtol=1e-4)
        (g,) = torch.autograd.grad(result, z)
        np.testing.assert_allclose(g, element * (p - target) / z.numel(), rtol=1e-4)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("size", [1, 37, 300])
def test_strength_0_is_bce_bit_for_bit(soft, size):
    loss = DynamicGradientBalancing(C, strength=0)
    for seed in range(3):
        z, y = batch(seed, size, soft=soft)
        plain = F.binary_cross_entropy_with_logits(z, y)
        assert loss(z, y).equal(plain)
        assert gradient(loss, z, y).equal(torch.autograd.grad(plain, z)[0])
        assert loss.weights.equal(torch.ones(2, C))


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_large_batch_is_torchs_weighted_loss(dtype, close, reduction):
    """Large ones take the logarithm from the probability that is at hand."""
    torch.manual_seed(0)
    z = (8 * torch.randn(1200, 60, dtype=dtype)).requires_grad_()
    y = (torch.rand(1200, 60) < 0.1).to(dtype)
    y[::7] = 0.3
    loss = DynamicGradientBalancing(60, reduction=reduction)
    value = loss(z, y)
    positive, negative = loss.weights.to(dtype)
    weight = torch.lerp(negative, positive, y)
    plain = F.binary_cross_entropy_with_logits(z, y, weight=weight, reduction=reduction)
    torch.testing.assert_close(value, plain, rtol=close, atol=close * weight.max().item())
    ours, theirs = (torch.autograd.grad(v.sum(), z)[0] for v in (value, plain))
    torch.testing.assert_close(ours, theirs, rtol=10 * close, atol=close / 1000)


def test_strength_0_is_the_other_bases_bit_for_bit():
    z, y = batch(0)
    for base, plain in (("focal", FocalLoss()), ("asl", AsymmetricLoss())):
        loss = DynamicGradientBalancing(C, strength=0, base=base)
        assert loss(z, y).equal(plain(z, y))
        assert gradient(loss, z, y).equal(gradient(plain, z, y))


@pytest.mark.parametrize("base", BASES)
def test_full_strength_equalises_a_stream(base):
    """Every entry, positives and negatives of each class, and so the classes' totals too."""
    loss = DynamicGradientBalancing(C, strength=1, max_weight=1e6, base=base)
    plain = DynamicGradientBalancing(C, strength=0, base=base)
    balanced, unbalanced = torch.zeros(2, C), torch.zeros(2, C)
    for step in range(700):
        z, y = batch(step)
        g = gradient(loss, z, y)
        if step >= 200:
            balanced += entries(g, y)
            unbalanced += entries(gradient(plain, z, y), y)
    assert unbalanced.max() / unbalanced.min() > 20
    assert unbalanced.sum(0).max() / unbalanced.sum(0).min() > 2
    totals = balanced.sum(0)
    assert totals.max() / totals.min() < 1.2
    assert balanced.max() / balanced.min() < 1.2
    # Weights meet the stream's average, not each batch, so the total is kept on average.
    assert balanced.sum() / unbalanced.sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5, 1.0])
def test_a_ratio_becomes_its_power(base, strength):
    z, y = batch(0, 400)
    plain = DynamicGradientBalancing(C, strength=0, base=base)
    before = entries(gradient(plain, z, y), y)
    loss = DynamicGradientBalancing(C, strength=strength, max_weight=1e6, base=base)
    after = entries(gradient(loss, z, y), y)
    torch.testing.assert_close(
        after / after[0, 0], (before / before[0, 0]) ** (1 - strength), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(after.sum(), before.sum())


@pytest.mark.parametrize("base", BASES)
def test_gradient_is_that_of_the_value(base):
    loss = DynamicGradientBalancing(C, strength=0.7, base=base).double()
    loss(*batch(0, dtype=torch.float64))
    for soft in (False, True):
        assert gradcheck(loss.eval(), batch(1, 8, torch.float64, soft))


def test_clipping_and_classes_never_seen():
    loss = DynamicGradientBalancing(3, strength=1, max_weight=4)
    assert loss.weights.equal(torch.ones(2, 3))  # nothing seen yet
    y = torch.zeros(5, 3)
    y[:, 0] = 1
    z = torch.zeros(5, 3, requires_grad=True)
    for _ in range(50):
        value = loss(z, y)
    value.backward()
    w = loss.weights
    assert value.isfinite()
    assert w.isfinite().all()
    seen = torch.tensor([[True, False, False], [False, True, True]])
    assert (w[~seen] / w[seen].unique()).tolist() == pytest.approx([8] * 3)  # 4 against 1/2
    # The first positive of class 1 is weighed by a statistic that counts it already.
    y[0, 1] = 1
    loss(z, y)
    assert loss.weights[0, 1].isfinite()


def test_a_batch_without_a_gradient_changes_nothing():
    z = torch.tensor([[-1e4, 1e4]], requires_grad=True)
    loss = DynamicGradientBalancing(2, strength=1)
    g = gradient(loss, z, torch.tensor([[0.0, 1.0]]))
    assert g.equal(torch.zeros(1, 2))
    assert loss.weights.equal(torch.ones(2, 2))


def test_state_dict_continues_exactly():
    loss = DynamicGradientBalancing(C)
    for step in range(5):
        loss(*batch(step))
    other = DynamicGradientBalancing(C)
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    for step in range(5, 10):
        z, y = batch(step)
        assert gradient(other, z, y).equal(gradient(loss, z, y))
    assert other.magnitudes.equal(loss.magnitudes)


def test_eval_rests_and_weights_stay():
    loss = DynamicGradientBalancing(C)
    loss(*batch(0))
    weights = loss.weights
    loss.eval()
    loss(*batch(1))
    assert loss.weights.equal(weights)
    assert not weights.requires_grad


def test_other_devices_are_checked_once():
    """A meta tensor has no values, so any check of them raises."""
    loss, zeros = DynamicGradientBalancing(2).to("meta"), torch.zeros(1, 2, device="meta")
    with pytest.raises(RuntimeError, match="meta"):
        loss(zeros, zeros)
    loss._seen_a_batch = True
    assert loss(zeros, zeros).is_meta


def test_non_finite_batches_leave_the_averages_alone():
    loss = DynamicGradientBalancing(2)
    loss(torch.zeros(1, 2), torch.zeros(1, 2))
    before = loss.magnitudes.clone()
    loss.observe(torch.tensor([[1.0, torch.nan], [torch.inf, 2.0]]))
    assert loss.magnitudes[0, 1].equal(before[0, 1])
    assert loss.magnitudes[1, 0].equal(before[1, 0])
    assert loss.magnitudes[0, 0] > before[0, 0]


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 8),
    classes=st.integers(1, 8),
    strength=st.floats(0, 1),
    max_weight=st.sampled_from([1, 3, 1e4]),
    scale=st.sampled_from([0.1, 3, 100]),
    soft=st.booleans(),
    base=st.sampled_from(sorted(BASES)),
    seed=st.integers(0, 2**32),
)
def test_total_gradient_is_kept(size, classes, strength, max_weight, scale, soft, base, seed):
    rng = torch.Generator().manual_seed(seed)
    z = (scale * torch.randn(size, classes, generator=rng)).requires_grad_()
    y = torch.rand(size, classes, generator=rng)
    y = y if soft else (y < 0.3).float()
    options = {"momentum": 0, "max_weight": max_weight, "base": base}
    loss = DynamicGradientBalancing(classes, strength=strength, **options)
    plain = DynamicGradientBalancing(classes, strength=0, **options)
    g, total = gradient(loss, z, y), gradient(plain, z, y).abs().sum()
    assert g.isfinite().all()
    torch.testing.assert_close(g.abs().sum(), total, rtol=1e-3, atol=1e-30)


def _rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    loss = DynamicGradientBalancing(C)
    for step in range(4):
        z, y = batch(step)
        loss(z[rank::2], y[rank::2])
    torch.save(loss.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    loss = DynamicGradientBalancing(C)
    for step in range(4):
        loss(*batch(step))
    states = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert states[0]["magnitudes"].equal(states[1]["magnitudes"])
    torch.testing.assert_close(states[0]["magnitudes"], loss.magnitudes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "strength is 1.5; give a number, 0 <= strength <= 1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"momentum": 1}, "momentum is 1; give a number, 0 <= momentum < 1"),
        ({"max_weight": 0.5}, "max_weight is 0.5; give a number, 1 <= max_weight"),
        ({"base": "hinge"}, "base is 'hinge'; give one of bce, focal, asl"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        DynamicGradientBalancing(3, **options)


@pytest.mark.parametrize("base", BASES)
def test_second_derivatives_are_refused_and_not_wrong(base):
    """A penalty on gradients is not left out in silence."""
    z, y = batch(0)
    value = DynamicGradientBalancing(C, base=base)(z, y)
    (g,) = torch.autograd.grad(value, z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (value + g.square().sum()).backward()
