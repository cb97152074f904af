"""Every option of every part: a wrong value ends in one line, a right one in finite numbers."""

import inspect
import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import ltml
from ltml import InputError, Recipe
from ltml.core.heads import HEADS
from ltml.core.labels import LabelMatrix
from ltml.core.losses import LOSSES, make_loss
from ltml.core.options import Bounds, build, fitted, kinds_of, options_of
from ltml.core.sampler import SAMPLERS
from ltml.data.pictograms import load as pictograms

LABELS = LabelMatrix(np.arange(40)[:, None] % 8 < [6, 3, 2, 1, 0])
WRONG = [
    *(None, True, False, "high", "", "2.0f", "1_0", "0x1", b"1", [], [1], {}, {"a": 1}, set()),
    *(math.nan, math.inf, -math.inf, "nan", "inf", "-inf", 1j, object(), 10**400, torch.ones(2)),
    *(-1, -0.5, "-1", 1.5, 1e300, -1e300, np.float64("nan"), Path("x"), np.array([1.0])),
]
EDGES = [0, 1, 0.0, 1.0, 1e-300, 1e-30, 1e-3, 1 - 1e-16, 1 - 1e-7, 1e3, 1e6, 1e9, 2**31, 2**63]
EDGES += [".5", "1e-3", " 1 ", "1.", np.float32(0.5), np.int8(1), torch.tensor(0.5), Fraction(1, 2)]


def bounds(kind) -> list[float]:
    """The ends of a kind's range, and their neighbours."""
    found = [
        end for b in getattr(kind, "__metadata__", ()) if isinstance(b, Bounds) for end in b.ends
    ]
    for of in get_args(kind):
        found += bounds(of)
    near = [math.nextafter(end, to) for end in found for to in (-math.inf, math.inf)]
    return [float(x) for x in (*found, *near)]


def values(kind) -> list:
    names = get_args(kind) if get_origin(kind) is Literal else ()
    return [*WRONG, *EDGES, *bounds(kind), *names]


def says(error: InputError, begins: str = "") -> None:
    assert str(error).startswith(begins)
    assert "\n" not in str(error)


def is_finite(x) -> bool:
    return bool(torch.as_tensor(x).isfinite().all())


@pytest.mark.parametrize(
    ("name", "option"), [(name, o) for name, part in LOSSES.items() for o in options_of(part)]
)
def test_a_loss_is_finite_or_refused(name, option):
    torch.manual_seed(0)
    targets = (torch.rand(6, 5) < 0.3).float()
    targets[0] = 0  # an image without labels
    logits = torch.randn(6, 5).mul(torch.tensor([[0.1], [1], [10], [100], [1e4], [1]]))
    accepted = 0
    for value in values(kinds_of(LOSSES[name])[option]):
        try:
            loss = make_loss(name, LABELS, **{option: value})
        except InputError as error:
            says(error, f"loss {name!r}: {option} is ")
            continue
        accepted += 1
        for _ in range(2):
            z = logits.clone().requires_grad_()
            found = loss(z, targets)
            found.sum().backward()
            assert is_finite(found), value
            assert is_finite(z.grad), value
    assert accepted


@pytest.mark.parametrize(
    ("name", "option"), [(name, o) for name, part in HEADS.items() for o in options_of(part)]
)
def test_a_head_is_finite_or_refused(name, option):
    maps, accepted = torch.randn(2, 6, 3, 3) * 30, 0
    for value in values(kinds_of(HEADS[name])[option]):
        try:
            head = build(
                HEADS[name], f"head {name!r}", {option: value}, in_channels=6, num_classes=5
            )
        except InputError as error:
            says(error, f"head {name!r}: {option} is ")
            continue
        accepted += 1
        head(maps).sum().backward()
        assert is_finite(head(maps)), value
        assert is_finite(head.classifier.weight.grad), value
    assert accepted


@pytest.mark.parametrize(
    ("name", "option"), [(name, o) for name, part in SAMPLERS.items() for o in options_of(part)]
)
def test_a_sampler_draws_or_refuses(name, option):
    accepted = 0
    kind = kinds_of(SAMPLERS[name])[option]
    for value in [*values(kind), "equal", "images", {"head": 1.0}, {"a": [0, 1], "b": [2]}]:
        given = {"batch_size": 4, "num_batches": 2} | {option: value}
        try:
            sampler = build(SAMPLERS[name], f"sampler {name!r}", given, labels=LABELS)
        except InputError as error:
            says(error)
            continue
        accepted += 1
        assert np.isfinite(sampler.image_probabilities()).all(), value
        assert len(sampler.indices(0)) == sampler.batch_size // sampler.world_size
        sampler.audit()
    assert accepted


@pytest.mark.parametrize("option", options_of(pictograms))
def test_a_data_set_is_loaded_or_refused(option):
    small = {"scale": 0.01, "image_size": 16, "test_images": 10}
    for value in [*WRONG, ".5", f"{small.get(option, 1) + 1}.0"]:
        try:
            data = ltml.load("pictograms", **small | {option: value})
        except InputError as error:
            says(error, f"data 'pictograms': {option} is ")
        else:
            assert len(data.train)


@pytest.mark.parametrize("field", list(inspect.signature(Recipe).parameters))
def test_a_recipe_is_checked_or_clean(field):
    kind = inspect.signature(Recipe).parameters[field].annotation
    for value in values(kind):
        recipe = Recipe(**{field: value})
        try:
            recipe.check()
        except InputError as error:
            says(error)
            continue
        found = getattr(recipe, field)
        assert found is None or isinstance(found, str | int | float | dict | list), value
        assert not isinstance(found, float) or math.isfinite(found)
        assert Recipe(**{field: found}) == recipe


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e-3", float, 0.001),
        (" .5", float, 0.5),
        (2, float, 2.0),
        (2.0, int, 2),
        ("2", int, 2),
        ("2e2", int, 200),
        (np.int64(3), int, 3),
        (np.float32(0.5), float, 0.5),
        (torch.tensor(4), int, 4),
        (Fraction(1, 4), float, 0.25),
        (np.bool_(True), bool, True),
        (Path("a/b"), str, "a/b"),
        (None, int | None, None),
        ("3", int | None, 3),
        (np.array([1, 2]), list[int], [1, 2]),
        ({"a": "1"}, dict[str, float], {"a": 1.0}),
        ("x", Literal["x", "y"], "x"),
        ("0.5", Annotated[float, Bounds("(0, 1)")] | None, 0.5),
    ],
)
def test_what_is_exact_is_converted(value, kind, expected):
    found = fitted("it", value, kind)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [
        (1.5, int, "a whole number"),
        (True, int, "a whole number"),
        ("yes", bool, "True or False"),
        (3, str | None, "text, or None"),
        ("ab", list[str], "a list, each text"),
        (1, Annotated[int, Bounds("(1, inf)")], "a whole number, it > 1"),
        ("hihg", Literal["high", "low"], "did you mean 'high'\\? Give one of high, low"),
    ],
)
def test_what_is_not_is_refused_with_what_would_do(value, kind, wanted):
    with pytest.raises(InputError, match=f"it is .*; .*{wanted}"):
        fitted("it", value, kind)


def test_every_option_of_a_part_has_a_rule():
    """A part of one's own may leave annotations out; those of the library do not."""
    for table in (LOSSES, SAMPLERS, HEADS, {"pictograms": pictograms}):
        for name, part in table.items():
            for option, kind in kinds_of(part).items():
                numeric = float in (kind, *get_args(kind)) or int in (kind, *get_args(kind))
                assert not numeric or get_origin(kind) is Annotated or get_args(kind), (
                    name,
                    option,
                )


def test_a_device_of_torch_is_a_device():
    assert Recipe(device=torch.device("cpu")) == Recipe(device="cpu")
