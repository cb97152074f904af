import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from ltml.draws import AliasTables, ShuffledPasses, alias_table, rounded_shares
from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler


@pytest.fixture(scope="module")
def labels():
    """A long tail: 60 images of 6 classes, 50 down to 2, tail beside head, 3 without labels."""
    rng = np.random.default_rng(0)
    lists = [np.flatnonzero(rng.random(6) < [0.8, 0.5, 0.3, 0.12, 0.06, 0.02]) for _ in range(54)]
    return LabelMatrix.from_lists([*lists, [5], [0, 5], [4], [], [], []], list("abcdef"))


GROUPS = {"often": [0, 1, 2], "seldom": [3, 4, 5]}
CASES = {
    "uniform": (UniformSampler, {}),
    "class-aware": (ClassAwareSampler, {}),
    "group": (GroupSampler, {"groups": GROUPS}),
    "group, ridge": (GroupSampler, {"groups": GROUPS, "ridge": 0.1, "share": "images"}),
    "group, batch": (GroupSampler, {"groups": GROUPS, "balance": "batch", "ridge": 0.01}),
    "group, mixed": (GroupSampler, {"groups": GROUPS, "uniform": 0.3, "share": "equal"}),
}


@pytest.fixture(params=CASES, ids=str)
def make(request, labels):
    cls, own = CASES[request.param]

    def build(**options):
        return cls(labels, **{"batch_size": 12, "num_batches": 7, "seed": 3, **own, **options})

    return build


def draw(sampler, count):
    batches = range(count // sampler.batch_size)
    return torch.cat([sampler.indices(batch) for batch in batches])


def test_table_of_names():
    assert {
        "uniform": UniformSampler,
        "class-aware": ClassAwareSampler,
        "group": GroupSampler,
    } == SAMPLERS


# --- what every sampler does ----------------------------------------------------------------


def test_batches(make, labels):
    batches = list(make())
    assert len(make()) == len(batches) == 7
    for index in batches:
        assert index.shape == (12,)
        assert index.dtype == torch.int64
        assert index.min() >= 0
        assert index.max() < len(labels)


def test_the_seed_decides(make):
    first, again, other = make(), make(), make(seed=4)
    one, two, three = (torch.cat(list(sampler)) for sampler in (first, again, other))
    assert one.equal(two)
    assert not one.equal(three)


def test_the_next_epoch_is_fresh_and_reproducible(make):
    sampler, long = make(), make(num_batches=21)
    epochs = [torch.cat(list(sampler)) for _ in range(3)]
    assert torch.cat(epochs).equal(torch.cat(list(long)))
    assert not epochs[0].equal(epochs[1])


@pytest.mark.parametrize("position", [0, 1, 6, 7, 10, 14])
def test_resumes_anywhere(make, position):
    whole = list(itertools.chain(*[make(num_batches=21)]))
    sampler = make()
    stream = itertools.chain(sampler, sampler, sampler)
    seen = [next(stream) for _ in range(position)]
    state = sampler.state_dict()
    assert state["batch"] == position
    resumed = make()
    resumed.load_state_dict(state)
    rest = list(resumed)
    assert len(rest) == 7 - position % 7
    for index, expected in zip([*seen, *rest], whole, strict=False):
        assert index.equal(expected)


def test_a_broken_iteration_goes_on(make):
    sampler = make()
    for _ in sampler:
        if sampler.batch == 3:
            break
    assert [b.tolist() for b in sampler] == [make().indices(b).tolist() for b in range(3, 7)]


def test_any_batch_in_any_order(make):
    sampler, reference = make(), list(make(num_batches=6000))
    for batch in (5999, 0, 4321, 3, 2730, 2731):  # within and beyond a block of draws
        assert sampler.indices(batch).equal(reference[batch])
    assert sampler.batch == 0


def test_a_batch_belongs_to_the_caller(make):
    sampler = make()
    index = sampler.indices(0)
    before = index.clone()
    index.fill_(-1)
    assert sampler.indices(0).equal(before)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batch(make, world_size):
    ranks = [make(rank=rank, world_size=world_size) for rank in range(world_size)]
    for batch, *parts in zip(make(), *ranks, strict=True):
        assert all(len(part) == 12 // world_size for part in parts)
        assert torch.stack(parts, dim=1).flatten().equal(batch)
    for rank, sampler in enumerate(ranks):
        assert sampler.drawn_for(5).equal(make().drawn_for(5)[rank::world_size])


def test_state_goes_from_two_ranks_to_one(make):
    two, one = make(rank=1, world_size=2), make()
    next(iter(two))
    one.load_state_dict(two.state_dict())
    assert one.batch == 1


def test_a_foreign_state_is_refused(make, labels):
    state = make().state_dict()
    for other, name in ((make(seed=9), "seed"), (make(batch_size=24), "batch_size")):
        with pytest.raises(InputError, match=f"state holds {name}"):
            other.load_state_dict(state)
    other = type(make())(labels.subset(range(59)), batch_size=12, num_batches=7, seed=3)
    with pytest.raises(InputError, match="state holds labels"):
        other.load_state_dict(state)
    with pytest.raises(InputError, match="batch -1"):
        make().load_state_dict({**state, "batch": -1})
    with pytest.raises(InputError, match="batch None"):
        make().load_state_dict({k: v for k, v in state.items() if k != "batch"})


def test_state_survives_weights_only_loading(make, tmp_path):
    sampler = make()
    sampler.batch = 5
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    resumed = make()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.batch == 5


def test_another_ridge_is_another_sequence(labels):
    def sampler(ridge):
        return GroupSampler(labels, groups=GROUPS, ridge=ridge, batch_size=4, num_batches=1)

    with pytest.raises(InputError, match=r"state holds ridge 0\.0, this sampler has 0\.1"):
        sampler(0.1).load_state_dict(sampler(0.0).state_dict())


def test_draws_follow_the_stated_probabilities(make, labels):
    sampler = make(batch_size=60)
    p = sampler.image_probabilities()
    assert p.shape == (len(labels),)
    assert p.sum() == pytest.approx(1)
    index = draw(sampler, 120_000)
    seen = torch.bincount(index, minlength=len(labels)).numpy()
    possible = p > 1e-4
    assert seen[~possible].sum() < 60
    if not sampler.replacement:
        assert (seen == 2000).all()
        return
    result = chisquare(seen[possible], p[possible] / p[possible].sum() * seen[possible].sum())
    assert result.pvalue > 1e-4


def test_draws_for_each_group_follow_its_own(make, labels):
    sampler = make(batch_size=60)
    index = draw(sampler, 60_000)
    group = torch.cat([sampler.drawn_for(batch) for batch in range(1000)])
    own = sampler.group_probabilities()
    for number, name in enumerate(sampler.groups):
        picked = index[group == number]
        if name not in own:
            assert len(picked) == 0
            continue
        assert len(picked) / len(index) == pytest.approx(sampler.shares[name], abs=0.01)
        p, seen = own[name], torch.bincount(picked, minlength=len(labels)).numpy()
        possible = p * len(picked) > 5
        result = chisquare(seen[possible], p[possible] / p[possible].sum() * seen[possible].sum())
        assert result.pvalue > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"num_batches": 0}, "num_batches is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"world_size": 5}, "batch_size 12 does not divide among world_size 5"),
        ({"world_size": 0}, "world_size is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2; give one of 0 to 1"),
    ],
)
def test_bad_input_is_named(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)


@pytest.mark.parametrize("cls", SAMPLERS.values())
def test_no_image_is_refused(cls):
    with pytest.raises(InputError, match="no image"):
        cls(LabelMatrix(np.zeros((0, 3))), batch_size=1, num_batches=1)


@pytest.mark.parametrize("cls", [ClassAwareSampler, GroupSampler])
def test_no_label_is_refused(cls):
    with pytest.raises(InputError, match="no label"):
        cls(LabelMatrix(np.zeros((4, 3))), batch_size=1, num_batches=1)


# --- each of them ---------------------------------------------------------------------------


def test_uniform_passes_hold_every_image_once(labels):
    sampler = UniformSampler(labels, batch_size=25, num_batches=12)
    drawn = torch.cat(list(sampler)).view(5, 60)
    assert drawn.sort(dim=1).values.equal(torch.arange(60).expand(5, 60))
    assert len({tuple(row.tolist()) for row in drawn}) == 5


def test_a_batch_larger_than_the_data_straddles_passes():
    sampler = UniformSampler(LabelMatrix([[1], [0], [1]]), batch_size=7, num_batches=3)
    assert torch.cat(list(sampler)).view(7, 3).sort(dim=1).values.unique(dim=0).tolist() == [
        [0, 1, 2]
    ]


def test_class_aware_draws_each_class_equally_often(labels):
    sampler = ClassAwareSampler(labels, batch_size=60, num_batches=1)
    Y = labels.dense().double().numpy()
    expected = (Y / Y.sum(0)).sum(1) / 6
    np.testing.assert_allclose(sampler.image_probabilities(), expected)


def test_class_aware_leaves_out_empty_classes():
    labels = LabelMatrix([[1, 0, 0], [0, 0, 1]], ["cat", "yeti", "dog"])
    sampler = ClassAwareSampler(labels, batch_size=100, num_batches=10)
    np.testing.assert_allclose(sampler.image_probabilities(), [0.5, 0.5])
    assert torch.cat(list(sampler)).double().mean() == pytest.approx(0.5, abs=0.06)


def test_mixing_with_uniform_draws(labels):
    options = {"groups": GROUPS, "batch_size": 10, "num_batches": 1}
    mixed, pure = GroupSampler(labels, uniform=0.3, **options), GroupSampler(labels, **options)
    np.testing.assert_allclose(
        mixed.image_probabilities(), 0.3 / 60 + 0.7 * pure.image_probabilities()
    )
    plain = draw(mixed, 2000)[torch.cat([mixed.drawn_for(b) for b in range(200)]) < 0]
    assert plain.view(10, 60).sort(dim=1).values.equal(torch.arange(60).expand(10, 60))


# --- the parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_alias_table_is_exact(seed):
    rng = np.random.default_rng(seed)
    p = rng.random(rng.integers(1, 40)) ** rng.choice([0.5, 1, 8])
    p = np.round(p, 1) + (seed % 3 == 0) if seed % 2 else p
    p[0] += 0.1
    p /= p.sum()
    keep, alias = alias_table(p)
    assert ((keep >= 0) & (keep <= 1)).all()
    back = keep + np.bincount(alias, 1 - keep, minlength=len(p))
    np.testing.assert_allclose(back / len(p), p, atol=1e-14)


@pytest.mark.parametrize("p", [[1, 1, 1], [1, 0], [0, 0, 3, 0], [1, 1, 2, 0], [2, 1, 1, 0, 1], [5]])
def test_alias_table_of_special_cases(p):
    keep, alias = alias_table(np.array(p))
    back = keep + np.bincount(alias, 1 - keep, minlength=len(p))
    np.testing.assert_allclose(back / len(p), np.array(p) / sum(p), atol=1e-15)


@pytest.mark.slow
def test_draws_beyond_two_to_the_24():
    n = 2**24 + 1000
    with pytest.raises(RuntimeError, match="2\\^24"):
        torch.multinomial(torch.ones(n), 1)
    weights = np.full(n, 0.5 / n)
    weights[-1] += 0.5
    tables = AliasTables([np.arange(n)], [weights], torch.device("cpu"))
    u = torch.rand(200_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = tables.draw(torch.zeros(200_000, dtype=torch.int64), u)
    assert (drawn == n - 1).double().mean() == pytest.approx(0.5, abs=0.01)
    rest = drawn[drawn != n - 1].double() / n
    assert rest.mean() == pytest.approx(0.5, abs=0.01)
    assert (drawn[drawn != n - 1] % 2).double().mean() == pytest.approx(0.5, abs=0.01)  # odd too
    assert rest.max() > 0.9999


def test_every_index_of_2_to_the_24_can_be_drawn():
    passes = ShuffledPasses(2**24 + 5, 0, "test", torch.device("cpu"))
    seen = passes.take(0, 2**24 + 5)
    assert int(seen.max()) == 2**24 + 4
    assert int(seen.sum()) == (2**24 + 5) * (2**24 + 4) // 2


@pytest.mark.parametrize("shares", [[1.0], [0.3, 0.7], [0.05, 0.9, 0.05], [0.0, 0.5, 0.5]])
@pytest.mark.parametrize("rest", [0.0, 0.25, 0.61803])
def test_shares_hold_in_every_batch_and_exactly_over_many(shares, rest):
    group, before = rounded_shares(0, 4000, 11, shares, rest)
    assert before[-1] == np.count_nonzero(group < 0) == int(4000 * 11 * rest)
    for number, share in enumerate(shares):
        counts = np.count_nonzero(group == number, axis=1)
        quota = 11 * (1 - rest) * share
        assert abs(counts - quota).max() < 2
        assert counts.mean() == pytest.approx(quota, abs=2e-3)
    later, _ = rounded_shares(3000, 3010, 11, shares, rest)
    np.testing.assert_array_equal(later, group[3000:3010])
