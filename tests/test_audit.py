import json

import numpy as np
import pytest

from ltml.audit import effective_size
from ltml.errors import InputError
from ltml.labels import LabelMatrix
from ltml.sampler import ClassAwareSampler, GroupSampler, UniformSampler


def real_labels(shared_data, name, num_classes):
    text = (shared_data / "label_lists" / f"{name}_lt_train.csv").read_text()
    rows = [[int(c) for c in line.split(",")[1].split()] for line in text.splitlines()[1:]]
    return LabelMatrix.from_lists(rows, [f"class {c}" for c in range(num_classes)])


@pytest.fixture
def labels():
    lists = [[0]] * 120 + [[0, 1]] * 30 + [[0, 2]] * 8 + [[1, 2]] * 2 + [[]] * 4
    return LabelMatrix.from_lists(lists, ["person", "dog", "sheep", "yeti"])


def test_numbers_by_hand(labels):
    found = UniformSampler(labels, batch_size=8, num_batches=1).audit()
    np.testing.assert_allclose(found.expected, np.array([158, 32, 10, 0]) / 164)
    assert found.ratio == pytest.approx(15.8)  # the yeti, on no image, is left out
    assert found.effective_images == pytest.approx(164)
    assert found.distinct_images == 164
    assert found.repeats == pytest.approx(1)
    assert found.cardinality == pytest.approx(200 / 164)
    assert found.leakage.loc["tail", "head"] == pytest.approx(0.8)
    assert found.leakage.loc["tail", "medium"] == pytest.approx(0.2)
    assert found.leakage.loc["head", "tail"] == pytest.approx(8 / 158)
    assert found.groups.loc["tail", "effective_images"] == pytest.approx(10)
    assert found.realised is None
    assert np.isnan(found.realised_ratio)


def test_distinct_images_are_what_an_epoch_holds(labels):
    sampler = ClassAwareSampler(labels, batch_size=164, num_batches=400)
    counted = np.mean([len(index.unique()) for index in sampler])
    assert sampler.audit().distinct_images == pytest.approx(counted, rel=0.02)


def test_realised_rates_approach_the_expected(labels):
    sampler = GroupSampler(labels, batch_size=50, num_batches=5)
    found = sampler.audit(50_001)
    assert found.draws == 50_050
    assert sampler.batch == 0
    np.testing.assert_allclose(found.realised, found.expected, atol=0.01)
    assert found.realised_ratio == pytest.approx(found.ratio, rel=0.05)


def test_ranks_audit_as_many_draws(labels):
    sampler = GroupSampler(labels, batch_size=50, num_batches=5, rank=1, world_size=2)
    assert sampler.audit(1000).draws == 1000


@pytest.mark.parametrize("sampler", [UniformSampler, ClassAwareSampler, GroupSampler])
@pytest.mark.parametrize("draws", [0, 100])
def test_is_a_table_a_text_and_json(labels, sampler, draws):
    found = sampler(labels, batch_size=8, num_batches=1).audit(draws)
    table = found.table()
    assert table.index.tolist() == ["person", "dog", "sheep", "yeti"]
    assert ("realised" in table) == bool(draws)
    assert table.loc["sheep", "group"] == "tail"
    text = str(found)
    assert text.startswith(sampler.__name__)
    assert all(name in text for name in ("head", "medium", "tail", "leakage"))
    back = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert back["classes"]["dog"]["count"] == 32
    assert (back["realised_ratio"] is None) == (not draws)


def test_report_is_printed(labels):
    found = GroupSampler(labels, batch_size=8, num_batches=1).audit()
    assert "note: 'yeti' of group 'tail': no image holds it" in str(found)


def test_a_class_never_drawn_makes_the_ratio_infinite(labels):
    only = GroupSampler(labels, groups={"people": [0]}, batch_size=8, num_batches=1)
    only._weights["people"][-10:] = 0  # as if no image with a sheep had any weight
    assert only.audit().ratio == float("inf")
    assert only.audit().as_dict()["ratio"] is None


@pytest.mark.parametrize("draws", [-1, 0.5, "many"])
def test_bad_draws(labels, draws):
    with pytest.raises(InputError, match="draws is"):
        UniformSampler(labels, batch_size=8, num_batches=1).audit(draws)


def test_effective_size():
    assert effective_size(np.full(7, 1 / 7)) == pytest.approx(7)


DESIGN = {  # measured once on the public label lists, independently
    "voc": (20, 193.75, 15.25, (2.91, 1.31, 1.12), (265, 208, 57), 670),
    "coco": (80, 188, 49.85, (5.96, 2.47, 1.38), (189, 900, 238), 1194),
}


@pytest.mark.parametrize("name", DESIGN)
def test_the_contrast_on_real_lists(shared_data, name):
    num_classes, uniform, aware, inside, effective, aware_head = DESIGN[name]
    labels = real_labels(shared_data, name, num_classes)
    options = {"batch_size": 64, "num_batches": 1}
    assert UniformSampler(labels, **options).audit().ratio == pytest.approx(uniform, abs=0.01)
    found = ClassAwareSampler(labels, **options).audit()
    assert found.ratio == pytest.approx(aware, abs=0.01)
    assert found.groups.own_ratio.tolist() == pytest.approx(inside, abs=0.01)
    assert found.groups.loc["head", "own_effective_images"] == pytest.approx(aware_head, abs=0.5)
    found = GroupSampler(labels, **options).audit()
    assert found.groups.own_ratio.max() < 1.01
    assert found.groups.own_effective_images.tolist() == pytest.approx(effective, abs=0.5)


@pytest.mark.parametrize("name", DESIGN)
@pytest.mark.parametrize("balance", ["group", "batch"])
def test_realised_on_real_lists(shared_data, name, balance):
    labels = real_labels(shared_data, name, DESIGN[name][0])
    options = {"batch_size": 64, "num_batches": 1, "balance": balance}
    if balance == "batch":  # all 200,000 draws
        found = GroupSampler(labels, **options).audit(200_000)
        assert found.groups.ratio.max() < 1.01
        assert found.groups.realised.max() < 1.10
        return
    for group, classes in labels.groups().items():  # 200,000 draws for each group
        found = GroupSampler(labels, groups={group: classes}, **options).audit(200_000)
        assert found.groups.own_ratio.max() < 1.01
        assert found.groups.own_realised.max() < 1.10
