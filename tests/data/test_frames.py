import logging
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset
from torchvision.datasets import FakeData, ImageFolder

from ltml.core.errors import InputError
from ltml.data import LongTailData, from_dataset, from_frame
from ltml.data.holdout import with_holdout
from ltml.data.loader import Loader

PHOTO = Image.new("RGB", (8, 8), (255, 0, 0))


@pytest.fixture
def files(tmp_path):
    for name in "abcd":
        PHOTO.save(tmp_path / f"{name}.png")
    return tmp_path


def frame(labels, images="abcd"):
    paths = [f"{name}.png" for name in images]
    return pd.DataFrame({"path": paths, "labels": labels}, index=range(10, 10 + len(paths)))


@pytest.mark.parametrize(
    ("cells", "names", "rows"),
    [
        ([["cat", "dog"], ["cat"], [], None], ("cat", "dog"), [[0, 1], [0], [], []]),
        (["cat;dog", "cat", "", None], ("cat", "dog"), [[0, 1], [0], [], []]),
        (["cat", "dog", "cat", "cat"], ("cat", "dog"), [[0], [1], [0], [0]]),
        ([{"cat"}, ("dog",), np.array(["cat"]), []], ("cat", "dog"), [[0], [1], [0], []]),
        ([0, 1, np.nan, 1], ("class 0", "class 1"), [[0], [1], [], [1]]),
        ([[0, 2], [1], [], [2]], ("class 0", "class 1", "class 2"), [[0, 2], [1], [], [2]]),
        ([[0, 0, 1], [1, 1, 0]] * 2, ("class 0", "class 1", "class 2"), [[2], [0, 1]] * 2),
        ([[True, False], [False, True]] * 2, ("class 0", "class 1"), [[0], [1]] * 2),
    ],
)
def test_labels_in_a_column(files, cells, names, rows):
    split = from_frame(frame(cells), root=files)
    assert split.labels.class_names == names
    assert [row.tolist() for row in split.labels] == rows
    assert split.ids == [f"{name}.png" for name in "abcd"]
    assert split.images[1] == files / "b.png"


def test_labels_in_columns(files):
    df = frame(0).assign(cat=[1, 0, 1, 0], dog=[True, False, False, True])
    split = from_frame(df, labels=["dog", "cat"], root=files)
    assert split.labels.class_names == ("dog", "cat")
    assert split.labels.dense().tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]


def test_rows_and_columns_may_be_called_anything(files):
    paths, Y = [f"{i}.png" for i in "abcd"], [[1, 1], [0, 1], [1, 0], [0, 0]]
    flags = pd.DataFrame(Y, columns=["cat", "dog"])
    levels = pd.MultiIndex.from_tuples([("image", "path"), ("y", "cat"), ("y", "dog")])
    named = pd.Index(paths, name="photo")
    for df in (
        flags.set_axis(paths),
        flags.set_axis(named),
        pd.concat([pd.Series(paths), flags], axis=1).set_axis(levels, axis=1),
        pd.concat([pd.Series(paths), flags], axis=1).set_axis([0, 1, 2], axis=1),
        flags.assign(path=paths).set_axis(["x", "x", "y", "y"]),
    ):
        split = from_frame(df, root=files)
        assert split.ids == paths
        assert split.labels.dense().tolist() == Y


def test_a_text_beside_lists_is_one_label(files):
    split = from_frame(frame(["cat", ["cat", "hot dog"], "hot dog", None]), root=files)
    assert split.labels.class_names == ("cat", "hot dog")
    assert split.labels.dense().tolist() == [[1, 0], [1, 1], [0, 1], [0, 0]]


def test_columns_left_out_of_those_given(files):
    df = pd.DataFrame({"path": ["a.png", "b.png"], "cat": [255, 0], "dog": [0, 1]})
    options = {"images": "path", "labels": ["cat", "dog"], "root": files}
    with pytest.raises(InputError, match=r"--values '255=1' or .* leave it out: --ignore 'cat'"):
        from_frame(df, **options)
    assert from_frame(df, **options, ignore="cat").labels.class_names == ("dog",)
    assert from_frame(df, **options, values="255=1").labels.dense().tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("cells", [["cat", "dog", "dog", "cat"], [0, 1, 1, 0]])
def test_a_row_per_label(files, cells):
    split = from_frame(frame(cells, images="aabc"), root=files)
    assert split.ids == ["a.png", "b.png", "c.png"]
    assert split.labels.dense().tolist() == [[1, 1], [0, 1], [1, 0]]


def test_a_test_frame_takes_the_classes_of_its_training_frame(files):
    train = from_frame(frame([["dog"], ["cat"], [], ["dog"]]), root=files)
    names = train.labels.class_names
    test = from_frame(frame([["dog"]], images="a"), root=files, class_names=names)
    assert LongTailData("mine", train, test).test.labels.dense().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("df", "options", "message"),
    [
        (frame("x"), {"images": "file"}, "no column 'file'; its columns are path, labels"),
        (frame("x"), {"name": "mine", "labels": ["cat"]}, "mine has no column 'cat'"),
        (frame(["x"], images="z"), {}, "frame, row 0: image"),
        (frame(["a", "red cat", "b", "c"]), {}, "row 1: 'red cat' may be"),
        (frame(None), {}, "frame holds no label"),
        (frame([{"x": 1}] * 4), {}, "row 0: a label is of type dict"),
        (frame([0.5, 1, 1, 1]), {}, "image 0 has label"),
        (frame(pd.Series(["['\ud800']"], [10], dtype=object), "a"), {}, "is no list as JSON or"),
        (frame("x").assign(path=None), {}, "frame, row 0: there is no path"),
        (frame([[0, 1], [1, 0]] * 2), {}, "row 0: the labels (0, 1) may be indices or 0 and 1"),
        (frame([1, 0, 2, 1]), {"labels": ["labels"]}, "row 2: column 'labels' holds '2', neither"),
        (frame(["a", "b"], images="ab"), {"class_names": ["a"]}, "row 1: label 'b' is none of"),
    ],
)  # fmt: skip
def test_broken_frames(files, df, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        from_frame(df, root=files, **options)


def test_a_separator_that_is_given_decides(files):
    split = from_frame(frame(["a", "red cat", "b", "c"]), root=files, separator="none")
    assert split.labels.class_names == ("a", "b", "c", "red cat")


@pytest.fixture
def image_folder(tmp_path):
    for name, count in (("cat", 3), ("dog", 2)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("RGB", (8 + i, 8), (60 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_torchvision_image_folder(image_folder):
    split = from_dataset(ImageFolder(image_folder))
    assert split.labels.class_names == ("cat", "dog")
    assert split.labels.dense().tolist() == [[1, 0]] * 3 + [[0, 1]] * 2
    assert split.images[2].size == (10, 8)
    images, targets = next(Loader(split, image_size=8, mean=(0,) * 3, std=(1,) * 3).batches([[2]]))
    assert images[0, 0, 0, 0] == pytest.approx(120 / 255)
    assert targets.tolist() == [[1, 0]]


def test_a_target_transform_is_applied(image_folder):
    dataset = ImageFolder(image_folder, target_transform=lambda target: [0, 1] if target else [0])
    assert from_dataset(dataset).labels.dense().tolist() == [[1, 0]] * 3 + [[1, 1]] * 2


def test_images_are_selected_without_being_decoded(image_folder):
    split = from_dataset(ImageFolder(image_folder))
    for path in image_folder.glob("*/*.png"):
        path.write_bytes(b"")
    assert len(split.subset([2, 4]).images) == 2
    data = with_holdout(LongTailData("mine", split, split), 0.4)
    assert len(data.val.images) == 2


def test_a_subset_of_a_data_set(image_folder):
    split = from_dataset(Subset(ImageFolder(image_folder), [4, 1]))
    assert split.labels.dense().tolist() == [[0, 1], [1, 0]]
    assert split.images[1].size == (9, 8)
    assert split.ids == ["4", "1"]


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_targets_of_0_and_1(kind):
    items = [(PHOTO, kind([0, 0, 1])), (PHOTO, kind([1, 0, 0]))]
    assert from_dataset(items).labels.dense().tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_targets_of_1_and_minus_1(kind):
    items = [(PHOTO, kind([-1, -1, 1])), (PHOTO, kind([1, -1, -1]))]
    assert from_dataset(items).labels.dense().tolist() == [[0, 0, 1], [1, 0, 0]]


def test_index_targets_may_have_names_that_are_other_numbers():
    split = from_dataset([(PHOTO, 0), (PHOTO, 1)], class_names=["1", "0"])
    assert split.labels.dense().tolist() == [[1, 0], [0, 1]]


def test_classes_of_several_names():
    dataset = FakeData(4, (3, 8, 8), num_classes=2, random_offset=1)
    dataset.classes = [("tench", "Tinca tinca"), ("crane",)]
    assert from_dataset(dataset).labels.class_names == ("tench, Tinca tinca", "crane")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([(torch.zeros(3, 8, 8) - 2, 0)], "give the data set without a transform that normalises"),
        ([(PHOTO, {"boxes": []})], "item 0: a label is of type dict"),
        ([(PHOTO, [0, -1])], "item 0: the labels '(0, -1)' hold -1; give NaN where"),
        ({"train": []}, "the data set has the splits train; give one of them"),
    ],
)  # fmt: skip
def test_broken_data_sets(dataset, message):
    with pytest.raises(InputError, match=re.escape(message)):
        from_dataset(dataset)


@pytest.fixture
def hugging_face():
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    kind = datasets.ClassLabel(names=["10", "2"])
    features = {
        "picture": datasets.Image(),
        "one": kind,
        "several": datasets.Sequence(kind),
        "tags": datasets.Sequence(datasets.Value("string")),
        "text": datasets.Value("string"),
    }
    columns = {
        "picture": [PHOTO] * 3,
        "one": [0, 1, 0],
        "several": [[0, 1], [], [1]],
        "tags": [["cat"], ["a dog", "cat"], []],
        "text": ["cat", "cat|dog", None],
    }
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_hugging_face(hugging_face, caplog):
    caplog.set_level(logging.INFO, "ltml")
    for column, names, Y in (
        ("one", ("10", "2"), [[1, 0], [0, 1], [1, 0]]),
        ("several", ("10", "2"), [[1, 1], [0, 0], [0, 1]]),
        ("tags", ("a dog", "cat"), [[0, 1], [1, 1], [0, 0]]),
        ("text", ("cat", "dog"), [[1, 0], [1, 1], [0, 0]]),
    ):
        split = from_dataset(hugging_face, labels=column)
        assert split.labels.class_names == names
        assert split.labels.dense().tolist() == Y
        assert split.subset([2, 1]).images[0].size == (8, 8)
    assert caplog.messages[-1] == "data set: 2 classes, labels separated by '|'"


def test_hugging_face_columns_are_found_by_their_type(hugging_face):
    dataset = hugging_face.remove_columns(["several"]).with_format("torch")
    split = from_dataset(dataset)
    assert split.labels.counts.tolist() == [2, 1]
    images, _ = next(Loader(split, image_size=8).batches([[0, 2]]))
    assert images.shape == (2, 3, 8, 8)
    with pytest.raises(
        InputError, match="does not say which column holds its labels; give labels=, of"
    ):
        from_dataset(hugging_face)


@pytest.mark.parametrize("form", ["lists", "objects", "names"])
def test_hugging_face_objects_give_labels(form):
    """Of an image's objects, beside their boxes; each class once."""
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    names = datasets.ClassLabel(names=["cat", "dog", "cow"])
    number = datasets.Value("int64")
    rows = [[0, 1, 0], [], [2]]
    if form == "lists":
        kind = {"category": datasets.List(names), "area": datasets.List(number)}
        cells = [{"category": row, "area": row} for row in rows]
    else:
        kind = [{"category": names if form == "objects" else datasets.Value("string")}]
        cells = [
            [{"category": c if form == "objects" else names.names[c]} for c in row] for row in rows
        ]
    features = datasets.Features({"image": datasets.Image(), "objects": kind})
    images = [Image.new("RGB", (8, 8))] * 3
    split = from_dataset(
        datasets.Dataset.from_dict({"image": images, "objects": cells}, features=features)
    )
    found = [{split.labels.class_names[c] for c in split.labels[i]} for i in range(3)]
    assert found == [{"cat", "dog"}, set(), {"cow"}]
