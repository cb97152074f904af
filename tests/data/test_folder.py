import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.data.folder import load, read_label_csv
from ltml.errors import InputError

TRAIN = "image,labels\nphotos/1.jpg,cat dog\nphotos/2.jpg,cat\nphotos/3.jpg,\n"
TEST = "image,labels\nphotos/4.jpg,dog\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(1, 5):
        (tmp_path / "photos" / f"{i}.jpg").touch()
    (tmp_path / "train.csv").write_text(TRAIN)
    (tmp_path / "test.csv").write_text(TEST)
    return tmp_path


def read(tmp_path, text, class_names=None):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return read_label_csv(path, class_names)


def test_folder(root):
    data = load(root=root)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.dense().tolist() == [[1, 1], [1, 0], [0, 0]]
    assert data.test.labels.dense().tolist() == [[0, 1]]
    assert data.train.images[0] == root / "photos/1.jpg"
    assert data.train.ids == ["photos/1.jpg", "photos/2.jpg", "photos/3.jpg"]
    (root / "train.csv").rename(root / "mine.csv")
    assert load(root=root, train_split="mine.csv").train.ids == data.train.ids


def test_classes_file_orders_the_columns(root):
    (root / "classes.txt").write_text("dog\ncow\ncat\n\n")
    data = load(root=root)
    assert data.class_names == ("dog", "cow", "cat")
    assert data.train.labels.counts.tolist() == [1, 0, 2]


def test_indices(tmp_path):
    text = "image,labels\n1.jpg,0 2\n2.jpg,2 2\n"
    _, labels = read(tmp_path, text)
    assert labels.class_names == ("class 0", "class 1", "class 2")
    assert labels.dense().tolist() == [[1, 0, 1], [0, 0, 1]]
    assert read(tmp_path, text, list("abcd"))[1].counts.tolist() == [1, 0, 2, 0]


def test_columns_quotes_and_line_ends(tmp_path):
    text = '\ufeffid,labels,image\r\n1,cat  dog ,"a,b.jpg"\r\n\r\n2,"cat",./c d.jpg\r\n'
    images, labels = read(tmp_path, text)
    assert images == ["a,b.jpg", "./c d.jpg"]
    assert labels.counts.tolist() == [2, 1]


def test_names_with_spaces(tmp_path):
    names = ["traffic light", "dog"]
    text = "image,labels\n1.jpg,traffic light;dog\n2.jpg,traffic light;\n3.jpg,dog\n"
    assert read(tmp_path, text, names)[1].dense().tolist() == [[1, 1], [1, 0], [0, 1]]
    with pytest.raises(InputError, match="line 2: 'traffic light' is one class but reads as"):
        read(tmp_path, "image,labels\n1.jpg,traffic light\n", names)


def test_names_that_are_numbers(tmp_path):
    text = "image,labels\n1.jpg,3\n2.jpg,7\n"
    assert read(tmp_path, text, ["7", "3"])[1].dense().tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match="line 2: label '1' is the name of class 0 and could be"):
        read(tmp_path, "image,labels\n1.jpg,1\n", ["1", "0"])
    assert read(tmp_path, "image,labels\n1.jpg,20261123174501\n", ["20261123174501"])
    text = "image,labels\n1.jpg,1\n"
    assert read(tmp_path, text, ["0", "1"])[1].counts.tolist() == [0, 1]  # the same either way


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no image"),
        ("image,labels\n", "holds no image"),
        ("1.jpg,cat\n", "line 1: the columns are '1.jpg,cat'; begin with"),
        ("image,labels,labels\n", "line 1: the columns"),
        ("image,labels\n1.jpg\n", "line 2: there are 1 columns, not 2"),
        ("image,labels\n1.jpg,cat,dog\n", "line 2: there are 3 columns, not 2"),
        ("image,labels\n\n,cat\n", "line 3: the name is empty"),
        ("image,labels\n1.jpg,cat\n./1.jpg,dog\n", "line 3: image './1.jpg' stands on line 2"),
        ("image,labels\n/1.jpg,cat\n", "line 2: '/1.jpg' may lead out"),
        ("image,labels\na/../../1.jpg,cat\n", "line 2: .* may lead out"),
        ('image,labels\n"1\n.jpg",cat\n', r"line 3: '1\\n.jpg' holds an unprintable"),
        ('image,labels\n"1.jpg,cat\n', "line 2 is not CSV"),
        ('image,labels\n"1"x,cat\n', "line 2 is not CSV"),
        ("image,labels\n1.jpg,0 1 -1\n", "line 2: label '0' is a number, but others are not"),
        ("image,labels\n1.jpg,0\n2.jpg,cat\n", "line 2: label '0' is a number"),
        ("image,labels\n1.jpg,99999999\n", "line 2: label '99999999' is no class index"),
        (f"image,labels\n1.jpg,{'9' * 5000}\n", "line 2: label .* is no class index"),
        ("image,labels\n1.jpg,\n", "holds no label"),
        (f"image,labels\n1.jpg,{'x' * 200_000}\n", "line 2 is not CSV: field larger"),
    ],
)
def test_broken_csv(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "labels.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_outside_the_classes(tmp_path):
    with pytest.raises(InputError, match="line 3: label 'cow' is not among the 2 classes"):
        read(tmp_path, "image,labels\n1.jpg,cat\n2.jpg,cow\n", ["cat", "dog"])
    with pytest.raises(InputError, match="line 3: label '2' is outside 0 to 1"):
        read(tmp_path, "image,labels\n1.jpg,1\n2.jpg,2\n", ["cat", "dog"])
    with pytest.raises(InputError, match=r"class_names: classes 1 and 2 are both named 'cat'"):
        read(tmp_path, "image,labels\n1.jpg,1\n", ["cat", "cat"])


def test_broken_folder(root, tmp_path_factory):
    with pytest.raises(InputError, match=r"split 'val' needs .*there are test.csv, train.csv"):
        load(root=root, test_split="val")
    with pytest.raises(InputError, match="may lead out"):
        load(root=root, test_split="../test")
    with pytest.raises(InputError, match="not a folder"):
        load(root=root / "none")

    (root / "photos/2.jpg").unlink()
    with pytest.raises(InputError, match=r"train.csv, line 3: image .*photos/2.jpg is missing"):
        load(root=root)
    outside = tmp_path_factory.mktemp("outside") / "2.jpg"
    outside.touch()
    (root / "photos/2.jpg").symlink_to(outside)
    with pytest.raises(InputError, match=r"train.csv, line 3: .* leads out of"):
        load(root=root)

    (root / "photos/2.jpg").unlink()
    (root / "photos/2.jpg").touch()
    (root / "test.csv").write_text("image,labels\nphotos/4.jpg,cow\n")
    with pytest.raises(
        InputError, match=r"test.csv, line 2: label 'cow' is not among the 2 classes"
    ):
        load(root=root)
    for text, message in (("cat\n\ndog\n", "class 2"), ("", "no class"), ("cat\ncat\n", "both")):
        (root / "classes.txt").write_text(text)
        with pytest.raises(InputError, match=f"classes.txt: .*{message}"):
            load(root=root)


TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)
PIECES = ["image", "labels", ",", "\n", "\r", '"', "cat", "dog", ";", " ", "0", "7", "-1", "1e9"]
PIECES += ["1.jpg", "/", "..", "\x00", "²", "9" * 30]


@given(st.one_of(TEXT, st.lists(st.sampled_from(PIECES), max_size=20).map("".join)), st.booleans())
@settings(deadline=None)
def test_any_text_is_labels_or_an_error(tmp_path_factory, text, header):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((("image,labels\n" if header else "") + text).encode())
    for names in (None, ["cat", "dog"]):
        read = read_or_error(read_label_csv, path, names)
        if read is not None:
            images, labels = read
            assert len(images) == len(labels) == len(set(images)) > 0
            assert not any(image.startswith("/") or "\n" in image for image in images)


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_any_bytes_are_labels_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"image,labels\n" + content)
    read_or_error(read_label_csv, path)


NAME = st.text(st.characters(categories=["L", "N"], include_characters=" ,'\"_-."), min_size=1)


@given(
    st.lists(
        NAME.map(str.strip).filter(lambda n: n not in ("", "..", ".")), min_size=1, unique=True
    ),
    st.lists(st.text("abcdé", min_size=1), min_size=1, max_size=6, unique=True),
    st.randoms(),
)
@settings(deadline=None)
def test_what_was_written_reads_back(tmp_path_factory, images, names, random):
    rows = [[name for name in names if random.random() < 0.5] for _ in images]
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "labels"])
        writer.writerows((image, " ".join(row)) for image, row in zip(images, rows, strict=True))
    back, labels = read_label_csv(path, names)
    assert back == images
    assert [[names[c] for c in labels[i]] for i in range(len(rows))] == rows


@pytest.mark.parametrize(
    ("name", "shape", "groups"),
    [
        ("voc_lt_train", (1142, 20), (6, 6, 8)),
        ("voc_lt_test", (4952, 20), None),
        ("coco_lt_train", (1909, 80), (22, 33, 25)),
        ("coco_lt_test", (5000, 80), None),
    ],
)
def test_published_label_lists(shared_data, name, shape, groups):
    images, labels = read_label_csv(shared_data / "label_lists" / f"{name}.csv")
    assert labels.shape == shape
    assert len(images) == shape[0]
    if groups:
        assert tuple(len(classes) for classes in labels.groups().values()) == groups
    if name == "voc_lt_train":
        published = [
            6,
            34,
            8,
            14,
            154,
            17,
            249,
            29,
            479,
            4,
            240,
            48,
            11,
            20,
            775,
            100,
            5,
            82,
            7,
            64,
        ]
        assert labels.counts.tolist() == published
    if name == "coco_lt_test":
        assert np.count_nonzero(np.diff(labels.indptr) == 0) == 48  # kept without a label
