import numpy as np
import pytest
import torch
from torch import nn
from torch.amp import GradScaler

from ltml import DynamicGradientBalancing, GradientLedger, InputError
from ltml.core.ledger import gradient_imbalance


def batches(seed=0, steps=3, B=8, C=5):
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield (
            torch.randn(B, C, generator=g, dtype=torch.float64),
            torch.rand(B, C, generator=g).lt(0.3).double(),
        )


def test_bce_sums_by_hand():
    """For summed BCE, |dL/dz| = |p - y|."""
    ledger = GradientLedger(5)
    positive, negative = 0, 0
    for logits, targets in batches():
        logits.requires_grad_()
        ledger.watch(logits, targets)
        nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum").backward()
        p = torch.sigmoid(logits.detach())
        positive += (targets * (1 - p)).sum(0)
        negative += ((1 - targets) * p).sum(0)
    record = ledger.read()
    assert np.allclose(record.positive, positive, atol=1e-6)
    assert np.allclose(record.negative, negative, atol=1e-6)
    assert np.isnan(record.weight).all()


def odd_loss(logits, targets):
    """A loss that nobody has a closed form for at hand."""
    return (torch.sin(logits) ** 2 * (1 + targets)).mean() + logits.logsumexp(1).mean()


def test_any_loss_against_autograd():
    ledger = GradientLedger(5)
    x, weight = torch.randn(8, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    weight.requires_grad_()
    ledger.watch_classifier(weight)
    expected, norms = 0, 0
    for _, targets in batches():
        logits = x @ weight.T
        ledger.watch(logits, targets)
        odd_loss(logits, targets).backward()
        norms += weight.grad.norm(dim=1)
        weight.grad = None

        z = (x @ weight.T).detach().requires_grad_()
        (grad,) = torch.autograd.grad(odd_loss(z, targets), z)
        expected += torch.stack(
            [(grad.abs() * targets).sum(0), (grad.abs() * (1 - targets)).sum(0)]
        )
    record = ledger.read()
    assert np.allclose([record.positive, record.negative], expected, atol=1e-6)
    assert np.allclose(record.weight, norms.detach(), rtol=1e-5)


def test_reading_starts_afresh_and_leaves_gradients_alone():
    ledger = GradientLedger(5)
    (logits, targets) = next(batches())
    plain = logits.clone().requires_grad_()
    odd_loss(plain, targets).backward()
    watched = logits.clone().requires_grad_()
    ledger.watch(watched, targets)
    odd_loss(watched, targets).backward()
    assert torch.equal(plain.grad, watched.grad)
    assert ledger.read().positive.sum() > 0
    assert ledger.read().positive.sum() == 0


def test_watching_waits_for_nothing(monkeypatch):
    """No value may travel to the host while a step is watched."""
    ledger, scaler = GradientLedger(5, interference=True), GradScaler("cpu")
    logits, targets = next(batches())
    weight = torch.ones(5, 3, requires_grad=True)
    ledger.watch_classifier(weight, scale=scaler)
    loss = scaler.scale(logits.requires_grad_().square().mean() + weight.sum())
    for name in ("item", "cpu", "numpy", "tolist", "__bool__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, **k: pytest.fail("host sync"))
    ledger.watch(logits, targets, scale=scaler)
    loss.backward()


def test_closed_ledger_no_longer_sees_the_classifier():
    ledger, weight = GradientLedger(2), torch.ones(2, 3, requires_grad=True)
    ledger.watch_classifier(weight)
    ledger.close()
    weight.sum().backward()
    assert ledger.sums[2].sum() == 0


def test_bad_input_is_named():
    ledger = GradientLedger(5)
    with pytest.raises(InputError, match=r"logits \(2, 4\).*both must be \(batch, 5\)"):
        ledger.watch(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(InputError, match="need no gradient"):
        ledger.watch(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"weight \(3, 2\) must be \(5, D\)"):
        ledger.watch_classifier(torch.zeros(3, 2))
    logits = torch.zeros(2, 5, requires_grad=True)
    with pytest.raises(InputError, match=r"needs the classifier; give watch\(weight=...\)"):
        GradientLedger(5, interference=True).watch(logits, torch.zeros(2, 5))
    with pytest.raises(InputError, match="interference=True"):
        _ = ledger.read().cosines


def test_full_balancing_drives_the_ledger_to_equal_classes():
    """A fixed stream of unequal classes, read from the ledger in steady state."""
    rate = torch.tensor([0.5, 0.2, 0.05, 0.01])
    imbalance = {}
    for name, loss in {
        "bce": nn.BCEWithLogitsLoss(),
        "dgb": DynamicGradientBalancing(4, strength=1, max_weight=1e4),
    }.items():
        ledger, g = GradientLedger(4), torch.Generator().manual_seed(0)
        for step in range(1200):
            if step == 400:
                ledger.read()  # what came before is not yet steady
            targets = (torch.rand(64, 4, generator=g) < rate).float()
            noise = torch.randn(64, 4, generator=g)
            logits = (torch.logit(rate) + noise).requires_grad_()
            ledger.watch(logits, targets)
            loss(logits, targets).backward()
        record = ledger.read()
        imbalance[name] = gradient_imbalance(record.positive + record.negative)
    assert imbalance["bce"] > 8
    assert imbalance["dgb"] < 1.2


def test_boolean_targets_are_taken():
    ledger = GradientLedger(2)
    logits = torch.zeros(2, 2, requires_grad=True)
    ledger.watch(logits, torch.tensor([[True, False], [False, True]]))
    logits.sum().backward()
    assert ledger.read().positive.tolist() == [1, 1]


SCALER = GradScaler("cpu", init_scale=65536.0)


@pytest.mark.parametrize(
    ("scale", "multiply"), [(8.0, lambda loss: 8 * loss), (SCALER, SCALER.scale)]
)
def test_the_scale_of_a_loss_is_divided_out(scale, multiply):
    ledger, plain = GradientLedger(5, interference=True), GradientLedger(5, interference=True)
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    targets = torch.eye(5)
    for ledger_, factor in ((ledger, scale), (plain, None)):
        ledger_.watch_classifier(weight, scale=factor)
        logits = weight.cumsum(1) @ torch.ones(3, 5)
        ledger_.watch(logits, targets, scale=factor)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        (loss if factor is None else multiply(loss)).backward()
        ledger_.close()
    assert ledger.sums[:3].min() > 0
    torch.testing.assert_close(ledger.sums, plain.sums)


def test_a_step_that_overflows_is_left_out():
    ledger, scaler = GradientLedger(2), GradScaler("cpu", init_scale=2.0**127)
    logits = torch.zeros(2, 2, requires_grad=True)
    ledger.watch(logits, torch.eye(2), scale=scaler)
    scaler.scale(logits.mul(8).sum()).backward()
    assert logits.grad.isinf().all()
    assert ledger.read().positive.tolist() == [0, 0]


def test_interference_is_that_of_a_backward_pass_per_class():
    """Gradients of each class's loss alone, in the features of all images of all steps."""
    B, C, D = 6, 5, 4
    head, random = nn.Linear(D, C), torch.Generator().manual_seed(0)
    ledger, explicit = GradientLedger(C, interference=True), [[] for _ in range(C)]
    for step in range(3):
        features = torch.randn(B, D, generator=random, requires_grad=True)
        targets = (torch.rand(B, C, generator=random) < 0.3).float()
        for c in range(C):
            column = nn.functional.binary_cross_entropy_with_logits(
                head(features)[:, c], targets[:, c], reduction="sum"
            )
            explicit[c].append(torch.autograd.grad(column, features)[0].flatten())
        logits = head(features)
        ledger.watch(logits, targets, weight=head.weight)
        with torch.autocast("cpu", torch.bfloat16):  # which must not lower the ledger's precision
            nn.functional.binary_cross_entropy_with_logits(
                logits, targets, reduction="sum"
            ).backward()
        with torch.no_grad():
            head.weight += 0.1 * step  # the weights change between steps
    flat = torch.stack([torch.cat(parts) for parts in explicit]).double()  # (C, steps * B * D)
    record = ledger.read()
    np.testing.assert_allclose(record.norms, flat.norm(dim=1), rtol=1e-5)
    cosines = nn.functional.cosine_similarity(flat[:, None], flat[None], dim=2)
    np.testing.assert_allclose(record.cosines, cosines, atol=1e-5)


def test_a_class_without_a_gradient_has_no_cosine():
    ledger = GradientLedger(2, interference=True)
    logits = torch.zeros(1, 2, requires_grad=True)
    ledger.watch(logits, torch.eye(2)[:1], weight=torch.ones(2, 3))
    logits[:, 0].sum().backward()
    record = ledger.read()
    assert record.norms.tolist() == pytest.approx([3**0.5, 0])
    assert np.isnan(record.cosines[0, 1])


def test_unknown_targets_belong_to_neither_sum():
    ledger, known = GradientLedger(5), torch.rand(8, 5, generator=torch.Generator().manual_seed(1))
    positive, negative, known = 0, 0, known < 0.6
    for logits, targets in batches():
        logits.requires_grad_()
        ledger.watch(logits, targets.masked_fill(~known, torch.nan))
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss.sum().backward()  # of a loss that does not mask
        p = torch.sigmoid(logits.detach())
        positive += (known * targets * (1 - p)).sum(0)
        negative += (known * (1 - targets) * p).sum(0)
    record = ledger.read()
    assert np.allclose(record.positive, positive, atol=1e-6)
    assert np.allclose(record.negative, negative, atol=1e-6)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "x", None, True, [3]])
def test_a_number_of_classes_is_a_whole_number(wrong):
    with pytest.raises(InputError, match=r"num_classes is .*give a whole number"):
        GradientLedger(wrong)


@pytest.mark.parametrize("device", ["odd", "cuda:99", 3.5, "cpu:x"])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(InputError, match="cannot be used here"):
        GradientLedger(2, device=device)
