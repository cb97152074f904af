import re

import pytest

from ltml.core.errors import InputError
from ltml.data.folder import load

HEAD = "image,labels\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(1, 5):
        (tmp_path / "photos" / f"{i}.jpg").touch()
    (tmp_path / "train.csv").write_text(
        "image,labels\nphotos/1.jpg,cat;dog\nphotos/2.jpg,cat\nphotos/3.jpg,\n"
    )
    (tmp_path / "test.csv").write_text("image,labels\nphotos/4.jpg,dog\n")
    return tmp_path


def test_folder(root):
    data = load(root=root)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.dense().tolist() == [[1, 1], [1, 0], [0, 0]]
    assert data.test.labels.dense().tolist() == [[0, 1]]
    assert data.val is None
    assert data.train.images[0] == root / "photos/1.jpg"
    assert data.train.ids == ["photos/1.jpg", "photos/2.jpg", "photos/3.jpg"]
    (root / "train.csv").rename(root / "mine.csv")
    assert load(root=root, train_split="mine.csv").train.ids == data.train.ids


def test_a_validation_split(root):
    (root / "photos/5.jpg").touch()
    (root / "dev.csv").write_text("image;cat;dog\nphotos/5.jpg;1;0\n")
    data = load(root=root, val_split="dev")
    assert data.val.labels.dense().tolist() == [[1, 0]]
    assert data.test.ids == ["photos/4.jpg"]


def test_images_by_absolute_path_and_by_links(root, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    (root / "photos").rename(disk / "photos")
    (root / "photos").symlink_to(disk / "photos")
    (root / "5.jpg").symlink_to(disk / "photos/1.jpg")
    (root / "test.csv").write_text(
        f"image,labels\n{disk}/photos/4.jpg,dog\n../{disk.name}/photos/4.jpg,cat\n5.jpg,cat\n"
    )
    data = load(root=root)
    assert [image.is_file() for image in (*data.train.images, *data.test.images)] == [True] * 6


def test_classes_file_orders_the_columns(root):
    (root / "classes.txt").write_text("dog\ncow\ncat\n\n")
    data = load(root=root)
    assert data.class_names == ("dog", "cow", "cat")
    assert data.train.labels.counts.tolist() == [1, 0, 2]


def test_training_classes_settle_how_a_test_file_is_read(root):
    (root / "train.csv").write_text("image,labels\nphotos/1.jpg,red circle;dog\n")
    (root / "test.csv").write_text("image,labels\nphotos/4.jpg,red circle\n")
    assert load(root=root).test.labels.dense().tolist() == [[0, 1]]


def test_the_separator_reaches_every_split(root):
    for split, image in (("train", 1), ("test", 4)):
        (root / f"{split}.csv").write_text(f"image,labels\nphotos/{image}.jpg,red circle\n")
    with pytest.raises(InputError, match="'red circle' may be"):
        load(root=root)
    assert load(root=root, separator="none").class_names == ("red circle",)
    assert load(root=root, separator=" ").class_names == ("circle", "red")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("test.csv", f"{HEAD}photos/4.jpg,cow\n", "test.csv, line 2: label 'cow' is none of"),
        (
            "test.csv",
            f"{HEAD}photos/4.jpg,Dog\n",
            "label 'Dog' is none of the 2 classes ('dog' but",
        ),
        ("test.csv", f"{HEAD}photos/4.jpg,dog\n5.jpg,\n6.jpg,\n", "5.jpg' is missing (and 1 more)"),
        ("test.csv", f"{HEAD}photos\\6.jpg,dog\n", "is missing: photos/ holds 4 images such as"),
        ("classes.txt", "cat\n\ndog\n", "classes.txt: class 2 is named ''"),
        ("classes.txt", "", "classes.txt: class 1 is named ''"),
        ("classes.txt", "cat\ncat\n", "classes.txt: classes 1 and 2 are both named 'cat'"),
    ],
)
def test_broken_folder(root, file, text, message):
    (root / file).write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        load(root=root)


def test_a_missing_split(root):
    with pytest.raises(InputError, match=r"split 'val' needs .*there are test.csv, train.csv"):
        load(root=root, test_split="val")
