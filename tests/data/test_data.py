"""Split, LongTailData and load: what every data set has in common."""

import numpy as np
import pytest
import torch

from ltml import InputError, LabelMatrix, LongTailData, Split
from ltml.data import load


def split(Y, names=("cat", "dog"), prefix="photo"):
    labels = LabelMatrix(Y, names)
    ids = [f"{prefix} {i}" for i in range(len(labels))]
    return Split(torch.zeros(len(labels), 3, 8, 8, dtype=torch.uint8), labels, ids)


BOTH = [[1, 0], [0, 1], [1, 1]]


def test_subset_by_indices_and_by_mask():
    whole = split(BOTH)
    for part in (whole.subset([2, 0]), whole.subset(np.array([True, False, True]))):
        assert len(part) == len(part.images) == 2
    assert whole.subset([2, 0]).ids == ["photo 2", "photo 0"]
    assert whole.subset([2, 0]).labels.dense().tolist() == [[1, 1], [1, 0]]
    files = Split(["a", "b", "c"], whole.labels, whole.ids)
    assert files.subset([1]).images == ["b"]


def test_a_split_has_as_many_ids_and_labels_as_images():
    with pytest.raises(InputError, match="number 2, 3 and 3"):
        Split(["a", "b"], LabelMatrix(BOTH), ["a", "b", "c"])


@pytest.mark.parametrize("which", ["test", "val"])
def test_all_splits_have_the_same_classes(which):
    splits = {"train": split(BOTH), "test": split(BOTH), which: split(BOTH, ["cat", "cow"])}
    with pytest.raises(InputError, match=f"train split .* the {which} split .*'cow', 'dog'"):
        LongTailData("mine", **splits)
    splits[which] = split(BOTH, ["dog", "cat"])
    with pytest.raises(InputError, match=f"train split .* the {which} split .*their order"):
        LongTailData("mine", **splits)


@pytest.mark.parametrize("which", ["train", "test", "val"])
def test_every_split_has_labels(which):
    splits = {"train": split(BOTH), "test": split(BOTH), which: split([[0, 0]])}
    with pytest.raises(InputError, match=f"the {which} split has 1 images and no label"):
        LongTailData("mine", **splits)


def test_the_representation_is_short():
    """As the last line of a notebook's cell it says how many, not every id and pixel."""
    data = LongTailData("mine", split(BOTH * 500), split(BOTH), val=split(BOTH[:2]))
    assert len(repr(data)) < 300
    for text in ("mine", "train=Split(1,500 images, 2 classes", "val=Split(2 images", "test=Split"):
        assert text in repr(data)
    html = data._repr_html_()
    assert "1,500" in html
    assert "<td>cat</td>" in html
    assert "photo" not in repr(data) + html + repr(data.train)
    assert len(html) < 1000


def test_html_is_escaped():
    data = LongTailData("<b>", split(BOTH, ["<i>", "x"]), split(BOTH, ["<i>", "x"]))
    assert "<b>" not in data._repr_html_()
    assert "<i>" not in data._repr_html_()


@pytest.mark.parametrize("name", ["voc", "voc-lt", "coco", "coco-lt", "folder"])
def test_a_missing_root_is_said_plainly(name):
    with pytest.raises(InputError, match=f"data '{name}' needs root: give the folder that holds"):
        load(name)


def test_bad_names_roots_and_options(tmp_path):
    with pytest.raises(InputError, match="data 'pictogram' is unknown; did you mean 'pictograms'"):
        load("pictogram")
    with pytest.raises(InputError, match="none' is not a folder; give the folder that holds"):
        load("voc", root=tmp_path / "none")
    with pytest.raises(InputError, match="data 'pictograms' takes no root"):
        load("pictograms", root=tmp_path)
    with pytest.raises(InputError, match="no option 'train_spilt'; did you mean 'train_split'"):
        load("coco", root=tmp_path, train_spilt="a")
