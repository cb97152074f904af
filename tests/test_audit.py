import json

import numpy as np
import pytest

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.sampler import SAMPLERS, ClassAwareSampler, GroupSampler, UniformSampler


@pytest.fixture
def labels():
    lists = [[0]] * 120 + [[0, 1]] * 30 + [[0, 2]] * 8 + [[1, 2]] * 2 + [[]] * 4
    return LabelMatrix.from_lists(lists, ["person", "dog", "sheep", "yeti"])


def test_numbers_by_hand(labels):
    found = UniformSampler(labels, batch_size=8).audit()
    np.testing.assert_allclose(found.expected, np.array([158, 32, 10, 0]) / 164)
    assert found.ratio == pytest.approx(15.8)  # the yeti, on no image, is left out
    assert found.effective_images == pytest.approx(164)
    assert found.distinct_images == 164
    assert found.repeats == pytest.approx(1)
    assert found.leakage.loc["tail", "head"] == pytest.approx(0.8)
    assert found.leakage.loc["tail", "medium"] == pytest.approx(0.2)
    assert found.leakage.loc["head", "tail"] == pytest.approx(8 / 158)
    assert found.groups.loc["tail", "effective_images"] == pytest.approx(10)
    assert np.isnan(found.realised).all()
    assert np.isnan(found.realised_ratio)


def test_a_sampler_without_groups_has_none_of_its_own(labels):
    own = UniformSampler(labels, batch_size=8).audit(100).groups.filter(like="own_")
    assert own.shape == (3, 2)
    assert own.isna().all(axis=None)


def test_distinct_images_are_what_an_epoch_holds(labels):
    sampler = ClassAwareSampler(labels, batch_size=164, num_batches=400)
    counted = np.mean([len(set(batch)) for batch in sampler])
    assert sampler.audit().distinct_images == pytest.approx(counted, rel=0.02)


def test_realised_rates_approach_the_expected(labels):
    sampler = GroupSampler(labels, batch_size=50)
    found = sampler.audit(50_001)
    assert found.draws == 50_050
    assert sampler.batch == 0
    np.testing.assert_allclose(found.realised, found.expected, atol=0.01)
    assert found.realised_ratio == pytest.approx(found.ratio, rel=0.05)
    np.testing.assert_allclose(found.groups.realised, found.groups.ratio, rtol=0.05)


def test_ranks_audit_as_many_draws(labels):
    assert GroupSampler(labels, batch_size=50, rank=1, world_size=2).audit(1000).draws == 1000


@pytest.mark.parametrize("draws", [0, 100])
@pytest.mark.parametrize("sampler", SAMPLERS.values())
def test_is_a_table_a_text_and_json(labels, sampler, draws):
    found = sampler(labels, batch_size=8).audit(draws)
    table = found.table()
    assert table.index.tolist() == ["person", "dog", "sheep", "yeti"]
    assert ("realised" in table) == bool(draws)
    assert table.loc["sheep", "group"] == "tail"
    text = str(found)
    assert text.startswith(sampler.__name__)
    assert all(name in text for name in ("head", "medium", "tail", "leakage"))
    back = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert back["classes"]["dog"]["count"] == 32
    assert back["ratio"] == pytest.approx(found.ratio, rel=1e-12)
    assert (back["realised_ratio"] is None) == (not draws)


def test_report_is_printed(labels):
    found = GroupSampler(labels, batch_size=8).audit()
    assert "note: 'yeti' of group 'tail': no image holds it" in str(found)


def test_a_class_never_sampled_makes_the_ratio_infinite():
    found = GroupSampler([[1, 0], [0, 1]], groups={"people": [0]}, batch_size=8).audit()
    assert found.ratio == float("inf")
    assert found.as_dict()["ratio"] is None


@pytest.mark.parametrize("draws", [-1, 0.5, "many"])
def test_bad_draws(labels, draws):
    with pytest.raises(InputError, match="draws is"):
        UniformSampler(labels, batch_size=8).audit(draws)


# --- the public label lists -----------------------------------------------------------------

DESIGN = {  # measured once, independently
    "voc": (193.75, 15.25, (2.91, 1.31, 1.12), (265, 208, 57), 670),
    "coco": (188, 49.85, (5.96, 2.47, 1.38), (189, 900, 238), 1194),
}


def test_the_contrast_on_real_lists(real_labels):
    name, labels = real_labels
    uniform, aware, inside, effective, aware_head = DESIGN[name]
    assert UniformSampler(labels, batch_size=64).audit().ratio == pytest.approx(uniform, abs=0.01)
    found = ClassAwareSampler(labels, batch_size=64).audit()
    assert found.ratio == pytest.approx(aware, abs=0.01)
    assert found.groups.own_ratio.tolist() == pytest.approx(inside, abs=0.01)
    assert found.groups.loc["head", "own_effective_images"] == pytest.approx(aware_head, abs=0.5)
    found = GroupSampler(labels, batch_size=64).audit()
    assert found.groups.own_ratio.max() < 1.0001
    assert found.groups.own_effective_images.tolist() == pytest.approx(effective, abs=0.5)


def test_each_group_is_balanced_on_real_lists(real_labels):
    labels = real_labels[1]
    for group, classes in labels.groups().items():
        found = GroupSampler(labels, groups={group: classes}, batch_size=64).audit(200_000)
        assert found.groups.realised.max() < 1.10
