import copy

import pytest
import torch

from ltml import InputError
from ltml.core.heads import HEADS, DiversityEnhancement, PooledLinear
from ltml.core.options import build, options_of


@pytest.fixture
def x():
    return torch.randn(4, 6, 3, 2, generator=torch.Generator().manual_seed(0))


def by_loops(dem, x, partner=None, u=None):
    """The formula of the docstring, location by location and class by class."""
    w, b = dem.classifier.weight, dem.classifier.bias
    B, D = x.shape[:2]
    C, locations = len(w), x.reshape(B, D, -1)
    f = torch.zeros(B, C, D)
    for i in range(B):
        for c in range(C):
            lengths = w[c].norm() * locations[i].mean(1).norm()
            s = torch.stack([dem.tau * w[c] @ xl / lengths for xl in locations[i].T])
            a = s.exp() / s.exp().sum()
            attended = sum(a_l * x_l for a_l, x_l in zip(a, locations[i].T, strict=True))
            f[i, c] = locations[i].mean(1) + dem.kappa * attended
    if partner is not None:
        mixed = torch.stack([f[i, partner[i]] for i in range(B)])
        f = (1 - u) * f + u * mixed
    return f, (f * w).sum(2) + b


def test_features_and_logits_follow_the_formula(x):
    dem = DiversityEnhancement(6, 5, kappa=0.7, tau=1.5).eval()
    features, logits = by_loops(dem, x)
    assert torch.allclose(dem.features(x), features, atol=1e-5)
    assert torch.allclose(dem(x), logits, atol=1e-5)
    assert torch.allclose(dem.attention(x).sum(2), torch.ones(4, 5))


def test_fusion_follows_the_formula(x):
    dem = DiversityEnhancement(6, 5, alpha=0.6)
    dem.generator = torch.Generator().manual_seed(3)
    fused = dem(x)
    random = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3))
    partner = random[1].argsort(1)
    assert all(sorted(row.tolist()) == list(range(5)) for row in partner)
    _, expected = by_loops(dem, x, partner, (0.6 * random[0]).unsqueeze(2))
    assert torch.allclose(fused, expected, atol=1e-5)
    assert not torch.allclose(fused, dem(x), atol=1e-3)  # another sample


def test_evaluation_does_not_fuse(x):
    dem = DiversityEnhancement(6, 5, alpha=1.0)
    plain = DiversityEnhancement(6, 5, alpha=0.0)
    plain.load_state_dict(dem.state_dict())
    assert torch.equal(dem.eval()(x), plain.train()(x))


def test_every_option_off_is_the_plain_head(x):
    dem, plain = DiversityEnhancement(6, 5, alpha=0.5, kappa=0), PooledLinear(6, 5)
    plain.load_state_dict(dem.state_dict())
    assert torch.allclose(dem(x), plain(x), atol=1e-6)


def test_gradients_reach_every_parameter_and_the_map(x):
    dem = DiversityEnhancement(6, 5, alpha=0.5)
    x.requires_grad_()
    dem(x).square().sum().backward()
    for tensor in (x, *dem.parameters()):
        assert (tensor.grad != 0).all()


def test_permuting_classes_permutes_logits(x):
    dem = DiversityEnhancement(6, 5).eval()
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = copy.deepcopy(dem)
    with torch.no_grad():
        permuted.classifier.weight.copy_(dem.classifier.weight[order])
        permuted.classifier.bias.copy_(dem.classifier.bias[order])
    assert torch.allclose(permuted(x), dem(x)[:, order], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5; give a number, 0 <= alpha <= 1"),
        ({"kappa": -1}, "kappa is -1"),
        ({"tau": float("nan")}, "tau is nan"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        DiversityEnhancement(6, 5, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("off", []), ("attention", ["kappa", "tau"]), ("dem", ["alpha", "kappa", "tau"])],
)
def test_each_head_shows_its_options_and_fuses_by_them_alone(x, name, options):
    assert options_of(HEADS[name]) == options
    head = build(HEADS[name], "head", {}, in_channels=6, num_classes=5)
    fused = head.train()(x)
    assert torch.allclose(fused, head.eval()(x), atol=1e-6) == (name != "dem")


@pytest.mark.parametrize("name", HEADS)
def test_a_map_of_zeros_is_finite(name):
    head = build(HEADS[name], "head", {}, in_channels=6, num_classes=5)
    head.normalize = True
    zeros = torch.zeros(2, 6, 3, 3)
    assert head(zeros).isfinite().all()
    assert head.features(zeros).isfinite().all()
