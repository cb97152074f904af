import inspect
import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.stats import chisquare
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.transforms import ToTensor

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.sampler import (
    SAMPLERS,
    ClassAwareSampler,
    GroupSampler,
    LateGroupSampler,
    UniformSampler,
)


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
    "group": (GroupSampler, {"groups": GROUPS, "ridge": 0.01}),
    "mixed": (GroupSampler, {"groups": GROUPS, "uniform": 0.3, "share": "equal"}),
}


@pytest.fixture(params=CASES, ids=str)
def make(request, labels):
    cls, own = CASES[request.param]

    def build(**options):
        return cls(labels, **{"batch_size": 12, "num_batches": 7, "seed": 3, **own, **options})

    return build


# --- what every sampler does ----------------------------------------------------------------


def test_batches_are_lists_of_python_ints(make):
    batches = list(make())
    assert len(batches) == len(make()) == 7
    assert {type(i) for batch in batches for i in batch} == {int}
    assert {len(batch) for batch in batches} == {12}
    assert make().indices(0).dtype == make().drawn_for(0).dtype == np.int64


@pytest.mark.parametrize("cls", SAMPLERS.values())
def test_an_epoch_is_the_default_and_help_shows_every_option(cls, labels):
    assert len(cls(labels, batch_size=16)) == 4
    parameters = inspect.signature(cls).parameters.values()
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters if p.name != "labels")
    assert {"batch_size", "num_batches", "seed", "groups"} <= {p.name for p in parameters}


@pytest.mark.parametrize(
    "form", [np.asarray, torch.as_tensor, coo_array, LabelMatrix, np.ndarray.tolist]
)
def test_labels_in_any_form(form, labels):
    Y = labels.dense().numpy()
    found = GroupSampler(form(Y), batch_size=12, groups=GROUPS)
    assert list(found) == list(GroupSampler(labels, batch_size=12, groups=GROUPS))


def test_the_seed_decides(make):
    assert list(make()) == list(make()) != list(make(seed=4))


def test_each_epoch_is_fresh_and_can_be_asked_for(make):
    sampler, whole = make(), list(make(num_batches=21))
    assert [*sampler, *sampler, *sampler] == whole
    sampler.set_epoch(1)
    assert list(sampler) == whole[7:14]
    assert list(sampler) == whole[14:]


@pytest.mark.parametrize("position", [1, 7, 10])
def test_resumes_anywhere(make, position, tmp_path):
    whole, sampler = list(make(num_batches=21)), make()
    seen = list(itertools.islice(itertools.chain(sampler, sampler), position))
    torch.save(sampler.state_dict(), tmp_path / "state.pt")
    resumed = make()
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.set_epoch(position // 7)  # as loops do: what is left of this epoch stays
    rest = list(resumed)
    assert len(rest) == 7 - position % 7
    assert [*seen, *rest] == whole[: position + len(rest)]


def test_any_batch_in_any_order(make):
    sampler, reference = make(), list(make(num_batches=6000))
    for batch in (5999, 0, 4321, 3, 2730, 2731):  # within and beyond a block
        assert sampler.indices(batch).tolist() == reference[batch]
    assert sampler.batch == 0


def test_a_batch_belongs_to_the_caller(make):
    sampler = make()
    before = sampler.indices(0).tolist()
    sampler.indices(0).fill(-1)
    assert sampler.indices(0).tolist() == before


def test_ranks_share_the_global_batch(make):
    ranks = [make(rank=rank, world_size=3) for rank in range(3)]
    for batch, *parts in zip(make(), *ranks, strict=True):
        assert np.stack(parts, axis=1).ravel().tolist() == batch
    for rank, sampler in enumerate(ranks):
        assert sampler.drawn_for(5).tolist() == make().drawn_for(5)[rank::3].tolist()
    one = make()
    one.load_state_dict(ranks[1].state_dict())
    assert one.batch == 7


def test_a_foreign_state_is_refused(make, labels):
    state = make().state_dict()
    other = type(make())(labels.subset(range(59)), batch_size=12, seed=3)
    for sampler, name in (
        (make(seed=9), "seed"),
        (make(batch_size=24), "batch_size"),
        (other, "labels"),
    ):
        with pytest.raises(InputError, match=f"state holds {name}"):
            sampler.load_state_dict(state)
    with pytest.raises(InputError, match="state: batch is None"):
        make().load_state_dict({k: v for k, v in state.items() if k != "batch"})


def test_images_come_as_often_as_stated(make, labels):
    sampler = make(batch_size=60)
    p, own = sampler.image_probabilities(), sampler.group_probabilities()
    image = np.concatenate([sampler.indices(batch) for batch in range(2000)])
    group = np.concatenate([sampler.drawn_for(batch) for batch in range(2000)])
    assert p.sum() == pytest.approx(1)
    if not sampler.replacement:
        assert (np.bincount(image) == 2000).all()
        return
    for which, q in [(group > -2, p), *((group == g, q) for g, q in enumerate(own.values()))]:
        seen, possible = np.bincount(image[which], minlength=len(labels)), q > 1e-4
        assert seen[~possible].sum() < 60
        expected = q[possible] / q[possible].sum() * seen[possible].sum()
        assert chisquare(seen[possible], expected).pvalue > 1e-4
    for g, name in enumerate(own):
        assert np.mean(group == g) == pytest.approx(sampler.shares[name], abs=0.01)


def test_groups_of_ones_own_change_what_is_said_but_no_batch(labels):
    groups = {"most": [0], "few": [4, 5]}
    for cls in (UniformSampler, ClassAwareSampler):
        plain, own = (cls(labels, batch_size=12, groups=g) for g in (None, groups))
        assert list(plain) == list(own)
        assert own.audit().groups.index.tolist() == ["most", "few"]
    assert own.shares == {"most": 1 / 6, "few": 2 / 6}
    assert set(own.drawn_for(0).tolist()) == {-1, 0, 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"num_batches": 0}, "num_batches is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"world_size": 5}, "batch_size is 12; give a multiple of world_size=5"),
        ({"rank": 2, "world_size": 2}, "rank is 2; give one of 0 to 1"),
        ({"groups": {"a": []}}, "groups\\['a'\\] holds no integer"),
        ({"groups": {"a": [0.5]}}, "groups is .*each a whole number"),
        ({"groups": {}}, "groups is empty"),
        ({"groups": {"a": [0, 7]}}, "class 7; give indices 0 to 5"),
        ({"groups": {"a": [-1]}}, "class -1"),
        ({"groups": {"a": [0, 1], "b": [1]}}, "class 1 \\('b'\\) twice"),
        ({"ridge": -0.1}, "ridge is -0.1"),
        ({"ridge": float("nan")}, "ridge is nan"),
        ({"uniform": 1.0}, "uniform is 1.0"),
        ({"share": "imgaes"}, "share is 'imgaes'; did you mean 'images'"),
        ({"share": {"medium": -1, "tail": 1}}, "share is .* a number >= 0"),
        ({"share": {"medium": 0, "tail": 0}}, "leaves nothing"),
        ({"share": {"head": 1}}, "each of \\['medium', 'tail'\\] a number"),
    ],
)
def test_bad_input_is_named(labels, options, message):
    with pytest.raises(InputError, match=message):
        GroupSampler(labels, **{"batch_size": 12, **options})


def test_nothing_to_sample_is_refused():
    for cls in SAMPLERS.values():
        with pytest.raises(InputError, match="no image"):
            cls(np.zeros((0, 3)), batch_size=1)
    for cls in (ClassAwareSampler, GroupSampler):
        with pytest.raises(InputError, match="no label"):
            cls(np.zeros((4, 3)), batch_size=1)


# --- each of them ---------------------------------------------------------------------------


def test_uniform_passes_hold_every_image_once(labels):
    passes = np.reshape(list(UniformSampler(labels, batch_size=25, num_batches=12)), (5, 60))
    assert (np.sort(passes) == np.arange(60)).all()
    assert len(np.unique(passes, axis=0)) == 5


def test_a_batch_larger_than_the_data_straddles_passes():
    passes = np.reshape(list(UniformSampler([[1], [0], [1]], batch_size=7, num_batches=3)), (7, 3))
    assert (np.sort(passes) == np.arange(3)).all()


def test_class_aware_probabilities_are_the_formula(labels):
    Y = labels.dense().double().numpy()
    sampler = ClassAwareSampler(labels, batch_size=60)
    np.testing.assert_allclose(sampler.image_probabilities(), (Y / Y.sum(0)).sum(1) / 6)


def test_class_aware_leaves_out_empty_classes():
    sampler = ClassAwareSampler([[1, 0, 0], [0, 0, 1]], batch_size=1000)
    np.testing.assert_allclose(sampler.image_probabilities(), [0.5, 0.5])
    assert np.mean(sampler.indices(0)) == pytest.approx(0.5, abs=0.06)


def test_a_uniform_share_is_mixed_in_as_passes(labels):
    mixed, pure = (
        GroupSampler(labels, groups=GROUPS, batch_size=10, uniform=uniform) for uniform in (0.3, 0)
    )
    np.testing.assert_allclose(
        mixed.image_probabilities(), 0.3 / 60 + 0.7 * pure.image_probabilities()
    )
    plain = [mixed.indices(b)[mixed.drawn_for(b) < 0] for b in range(200)]
    assert (np.sort(np.reshape(np.concatenate(plain), (10, 60))) == np.arange(60)).all()


def test_a_uniform_share_below_one_image_in_a_block(labels):
    sampler = GroupSampler(labels, groups=GROUPS, batch_size=10, uniform=1e-5, num_batches=10_000)
    assert sum(np.count_nonzero(sampler.drawn_for(b) < 0) for b in range(10_001)) == 1
    assert len(list(sampler)) == 10_000


@pytest.mark.parametrize(("share", "uniform"), [(0.3, 0.0), (0.05, 0.25), (0.0, 0.61803)])
def test_shares_hold_in_every_batch_and_exactly_over_many(labels, share, uniform):
    shares = {"often": share, "seldom": 1 - share}
    options = {"groups": GROUPS, "share": shares, "uniform": uniform}
    sampler = GroupSampler(labels, batch_size=11, **options)
    group = np.stack([sampler.drawn_for(batch) for batch in range(4000)])
    assert np.count_nonzero(group < 0) == int(4000 * 11 * uniform)
    for number, name in enumerate(shares):
        counts, quota = np.count_nonzero(group == number, axis=1), 11 * sampler.shares[name]
        assert abs(counts - quota).max() < 2
        assert counts.mean() == pytest.approx(quota, abs=2e-3)


@pytest.mark.parametrize(("last", "start"), [(0.4, 12), (1.0, 0), (1e-9, 19), (0.33, 13)])
def test_late_batches_are_those_of_two_samplers(labels, last, start):
    size, own = {"batch_size": 12, "num_batches": 20}, {"groups": GROUPS, "uniform": 0.3}
    late = LateGroupSampler(labels, **size, **own, last=last)
    uniform, group = UniformSampler(labels, **size), GroupSampler(labels, **size, **own)
    assert list(late) == list(uniform)[:start] + list(group)[start:]
    assert late.start == start
    assert (late.drawn_for(start) == group.drawn_for(start)).all()
    assert start == 0 or set(late.drawn_for(start - 1)) == {-1}


@pytest.mark.parametrize("position", [4, 6, 8])  # before, at and after the first group draws
def test_late_sampling_resumes(labels, position):
    options = {"batch_size": 12, "num_batches": 10, "groups": GROUPS}
    sampler, resumed = (LateGroupSampler(labels, **options) for _ in range(2))
    seen = list(itertools.islice(sampler, position))
    resumed.load_state_dict(sampler.state_dict())
    assert [*seen, *resumed] == list(LateGroupSampler(labels, **options))


def test_the_late_audit_is_that_of_the_group_draws(labels):
    options = {"batch_size": 12, "num_batches": 200, "groups": GROUPS}
    found = LateGroupSampler(labels, **options).audit(12_000)
    group = GroupSampler(labels, **options)
    np.testing.assert_array_equal(found.expected, group.audit().expected)
    counted = np.concatenate([group.indices(batch) for batch in range(120, 1120)])
    np.testing.assert_allclose(found.realised, labels.dense().numpy()[counted].mean(0))


def test_a_state_with_another_late_part_is_refused(labels):
    short, long = (
        LateGroupSampler(labels, batch_size=12, num_batches=n, groups=GROUPS) for n in (10, 20)
    )
    with pytest.raises(InputError, match="state holds start 6, this sampler has 12"):
        long.load_state_dict(short.state_dict())


@pytest.mark.parametrize("last", [0, 1.1, float("nan")])
def test_bad_last(labels, last):
    with pytest.raises(InputError, match="last is"):
        LateGroupSampler(labels, batch_size=12, last=last)


# --- under other libraries ------------------------------------------------------------------


def test_torchvision_data_set(labels):
    data = FakeData(len(labels), (3, 8, 8), transform=ToTensor())
    sampler, again = (GroupSampler(labels, batch_size=12, groups=GROUPS) for _ in range(2))
    loaded = DataLoader(data, batch_sampler=sampler, num_workers=2)
    for (images, targets), batch in zip(loaded, again, strict=True):
        assert images.shape == (12, 3, 8, 8)
        assert targets.tolist() == [data[i][1] for i in batch]


def test_accelerate(labels):
    accelerate = pytest.importorskip("accelerate")
    images, sampler = torch.arange(len(labels)), GroupSampler(labels, batch_size=12, groups=GROUPS)
    loader = accelerate.Accelerator(cpu=True).prepare(DataLoader(images, batch_sampler=sampler))
    assert len(loader) == 5
    two_epochs = [batch.tolist() for _ in range(2) for batch in loader]
    again = GroupSampler(labels, batch_size=12, groups=GROUPS)
    assert two_epochs == [*again, *again]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_what_was_taken_of_an_epoch_leaves_the_next_whole(make, workers):
    sampler, whole = make(), list(make(num_batches=35))
    loader = DataLoader(torch.arange(60), batch_sampler=sampler, num_workers=workers)

    def epoch(limit=7):
        return [batch.tolist() for _, batch in zip(range(limit), loader, strict=False)]

    next(iter(loader))
    iter(sampler)  # of which nothing is taken: no epoch begins
    assert epoch() == whole[7:14]
    assert [epoch(5), epoch(5)] == [whole[14:19], whole[21:26]]
    sampler.set_epoch(0)
    assert epoch(3) == whole[:3]
    sampler.set_epoch(0)
    assert epoch() == whole[:7]
    assert epoch() == whole[7:14]
    assert sampler.state_dict()["batch"] == 14


@pytest.mark.parametrize("position", [0, 7, 9, 13])
def test_a_resumed_sampler_never_goes_back(make, position):
    """Loaders that are new count from 0, loops from where they stopped."""
    whole = list(make(num_batches=35))
    state = make().state_dict(batch=position)
    for first in {0, position // 7}:
        sampler, at = make(), position - position % 7
        sampler.load_state_dict(state)
        for number in range(3):
            sampler.set_epoch(first + number)
            begin = position if number == 0 else at + 7 * number
            assert list(sampler) == whole[begin : at + 7 * (number + 1)]
    sampler.set_epoch(4)
    assert list(sampler) == whole[28:]
    sampler.load_state_dict(make().state_dict())
    assert list(sampler) == whole[:7]


@pytest.mark.parametrize("processes", [1, 2])
def test_states_under_accelerate_count_what_was_trained_on(make, processes):
    data_loader = pytest.importorskip("accelerate.data_loader")
    sampler = make(num_batches=8)
    loader = data_loader.prepare_data_loader(
        DataLoader(torch.arange(60), batch_sampler=sampler),
        num_processes=processes,
        process_index=0,
        put_on_device=False,
    )
    found = [sampler.state_dict()["batch"] for _ in loader]
    assert found == list(range(processes, 9, processes))
    plain = [sampler.state_dict()["batch"] for _ in DataLoader(range(60), batch_sampler=sampler)]
    assert plain == list(range(9, 17))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("skipped", [0, 2])
def test_accelerate_and_a_sampler_do_not_both_shard(make, split, world_size, skipped):
    data_loader = pytest.importorskip("accelerate.data_loader")
    sampler = make(world_size=world_size)
    loader = data_loader.prepare_data_loader(
        DataLoader(torch.arange(60), batch_sampler=sampler),
        num_processes=2,
        process_index=0,
        put_on_device=False,
        split_batches=split,
    )
    loader = data_loader.skip_first_batches(loader, skipped) if skipped else loader
    if world_size == 1:
        assert len(list(loader)) > 0
    else:
        with pytest.raises(InputError, match=r"world_size=.*leave rank and world_size out"):
            next(iter(loader))
    alone = data_loader.prepare_data_loader(
        DataLoader(torch.arange(60), batch_sampler=sampler), num_processes=1, put_on_device=False
    )
    assert len(list(alone)) > 0
    assert len(list(DataLoader(torch.arange(60), batch_sampler=sampler))) > 0


def test_a_loader_that_dispatches_shards_too(make, monkeypatch):
    data_loader = pytest.importorskip("accelerate.data_loader")
    loader = data_loader.DataLoaderDispatcher(torch.arange(60), batch_sampler=make(world_size=2))
    monkeypatch.setitem(loader.state._shared_state, "num_processes", 2)
    with pytest.raises(InputError, match="leave rank and world_size out"):
        next(iter(loader))


def test_a_position_is_a_whole_number(make):
    for wrong in (-1, 2.5, "next"):
        with pytest.raises(InputError, match="epoch"):
            make().set_epoch(wrong)
        with pytest.raises(InputError, match="batch"):
            make().state_dict(batch=wrong)


def test_a_trainer_cannot_rebuild_a_sampler_without_its_options(make):
    """Lightning rebuilds, in several processes, what has batch_size and drop_last, from these."""
    assert not hasattr(make(), "drop_last")
