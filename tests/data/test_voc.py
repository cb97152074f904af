import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from ltml.core.errors import InputError
from ltml.data import load as load_data
from ltml.data.voc import VOC_CLASSES, load, load_voc_lt, read_annotation


def annotation(*names):
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


def make_tree(root, year="VOC2012", **sets):
    """A tree with the given image sets, {"train": {"000001": ["cat"]}}; images are empty files."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / year / folder).mkdir(parents=True, exist_ok=True)
    for split, labels in sets.items():
        (root / year / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(labels) + "\n")
        for name, classes in labels.items():
            (root / year / "Annotations" / f"{name}.xml").write_text(annotation(*classes))
            (root / year / "JPEGImages" / f"{name}.jpg").touch()
    return root / year


@pytest.fixture
def tree(tmp_path):
    return make_tree(
        tmp_path / "VOCdevkit",
        train={"000001": ["cat", "person", "cat"], "000002": ["dog"]},
        val={"000003": ["cat"]},
    )


def labels_of(split):
    names = split.labels.class_names
    return {name: {names[c] for c in split.labels[i]} for i, name in enumerate(split.ids)}


def test_labels_and_paths(tree):
    data = load(root=tree.parent)
    assert labels_of(data.train) == {"000001": {"cat", "person"}, "000002": {"dog"}}
    assert labels_of(data.test) == {"000003": {"cat"}}
    assert data.class_names == VOC_CLASSES
    assert data.train.images == [tree / "JPEGImages" / f"00000{i}.jpg" for i in (1, 2)]
    assert data.val is None
    assert load(root=tree.parent, test_split="train", val_split="val").val.ids == ["000003"]


@pytest.mark.parametrize("up", [0, 1, 2])
def test_root_is_the_tree_the_devkit_or_its_parent(tree, up):
    root = [tree, *tree.parents][up]
    assert load(root=root).train.ids == ["000001", "000002"]
    assert load(root=root, train_split="VOC2012/train").train.ids == ["000001", "000002"]


def test_years(tree):
    make_tree(tree.parent, "VOC2007", train={"000009": ["cow"]}, test={"000010": ["cow"]})
    with pytest.raises(InputError, match=r"'train' is in 2 trees .*VOC2007/train, .*VOC2012/train"):
        load(root=tree.parent)
    data = load(root=tree.parent, train_split="VOC2007/train", test_split="test")
    assert (data.train.ids, data.test.ids) == (["000009"], ["000010"])


def test_split_may_be_any_file_of_ids(tree, tmp_path, monkeypatch):
    listing = tmp_path / "mine.txt"
    listing.write_text("000003 -1\n000001  1\n")  # flags of a per-class set are ignored
    make_tree(tree.parent, "VOC2007", test={"000010": ["cow"]})
    monkeypatch.chdir(tmp_path)
    for split in (str(listing), "mine.txt", listing):
        data = load(root=tree.parent, train_split=split)
        assert labels_of(data.train) == {"000003": {"cat"}, "000001": {"cat", "person"}}
    listing.write_text("000010\n000001\n")  # from two years
    data = load(root=tree.parent, train_split=str(listing), test_split="val")
    assert data.train.ids == ["000010", "000001"]
    with pytest.raises(InputError, match=r"1 image is in both splits .* and 'test', .*'000010"):
        load(root=tree.parent, train_split=str(listing), test_split="test")
    make_tree(tree.parent, "VOC2007", test={"000001": ["cow"]})
    with pytest.raises(InputError, match="line 2: '000001' is annotated in 2 of VOC2007, VOC2012"):
        load(root=tree.parent, train_split=str(listing))


def test_other_classes_and_suffixes(tmp_path):
    tree = make_tree(tmp_path, "VOC2020", train={"a": ["zebra"]}, val={"b": ["okapi", "zebra"]})
    (tree / "JPEGImages/b.jpg").rename(tree / "JPEGImages/b.png")
    data = load(root=tmp_path, classes=["okapi", "zebra"])
    assert data.train.labels.dense().tolist() == [[0, 1]]
    assert data.test.images == [tree / "JPEGImages/b.png"]
    with pytest.raises(InputError, match="both named 'cat'"):
        load(root=tmp_path, classes=["cat", "cat"])


@pytest.mark.parametrize("folder", ["", "JPEGImages", "Annotations", "ImageSets"])
def test_links_to_another_disk_are_followed(tree, tmp_path, folder):
    """The whole tree, or a folder of it, may be on another disk, and so may single images."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tree / folder).rename(disk / "there")
    (tree / folder).symlink_to(disk / "there")
    image = tree / "JPEGImages/000001.jpg"
    image.rename(disk / "photo.jpg")
    image.symlink_to(disk / "photo.jpg")
    data = load(root=tree.parent)
    assert labels_of(data.train) == {"000001": {"cat", "person"}, "000002": {"dog"}}
    assert data.train.images[0].resolve() == disk / "photo.jpg"


def break_tree(tree, what):
    train = tree / "ImageSets/Main/train.txt"
    xml, image = tree / "Annotations/000002.xml", tree / "JPEGImages/000002.jpg"
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    {
        "no image set": train.unlink,
        "no image": image.unlink,
        "no annotation": xml.unlink,
        "empty split": lambda: train.write_text("\n"),
        "twice": lambda: train.write_text("000001\n000002\n000001\n"),
        "list not UTF-8": lambda: train.write_bytes(b"000001\n\xe9\n"),
        "a pickle": lambda: train.write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00."),
        "truncated": lambda: xml.write_text(annotation("dog")[:-5]),
        "not XML": lambda: xml.write_bytes(b"\x00\x01\x02"),
        "not UTF-8": lambda: xml.write_bytes(annotation("caf\xe9").encode("latin-1")),
        "UTF-16": lambda: xml.write_text(annotation("dog"), encoding="utf-16"),
        "other root": lambda: xml.write_text("<svg/>"),
        "nested": lambda: xml.write_text(f"<annotation><a>{annotation('dog')}</a></annotation>"),
        "no name": lambda: xml.write_text(annotation("dog", " ")),
        "class": lambda: xml.write_text(annotation("dog", "unicorn")),
        "bomb": lambda: xml.write_text(
            f'<!DOCTYPE a [<!ENTITY e0 "x">{bomb}]>' + annotation("&e9;")
        ),
        "huge": lambda: xml.write_text(annotation(*["dog"] * 200_000)),
    }[what]()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no image set", "split 'train' is in 0 trees .*give one of VOC2012/val"),
        ("no image", "train.txt: the file of line 2, '000002' in .*JPEGImages, is missing; add it"),
        ("no annotation", "train.txt, line 2: '000002' is annotated in 0 of VOC2012; add it"),
        ("empty split", "train.txt is empty"),
        ("twice", "train.txt, line 3: '000001'"),
        ("list not UTF-8", "train.txt is not UTF-8 text: byte 7"),
        ("a pickle", "train.txt is not UTF-8 text"),
        ("truncated", "000002.xml is not well-formed XML: .* line 1, column"),
        ("not XML", "000002.xml is not well-formed XML"),
        ("not UTF-8", "000002.xml is not UTF-8"),
        ("UTF-16", "000002.xml is not UTF-8"),
        ("other root", "000002.xml does not hold its <object>s directly in an <annotation>"),
        ("nested", "000002.xml does not hold its <object>s directly in an <annotation>"),
        ("no name", "000002.xml: object 2 has no single plain <name>"),
        ("class", "000002.xml: class 'unicorn' is not among the 20 classes aeroplane, .*tvmonitor"),
        ("bomb", "000002.xml declares a document type"),
        ("huge", r"000002.xml has [0-9,]+ bytes"),
    ],
)
def test_broken_tree(tree, what, message):
    break_tree(tree, what)
    with pytest.raises(InputError, match=message) as caught:
        load(root=tree.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["", "..", "VOC2008/train", "a" * 300, "x\n", "none.txt", "\0"])
def test_unknown_split(tree, split):
    with pytest.raises(InputError, match="split"):
        load(root=tree.parent, train_split=split)


def test_root_without_tree(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="holds no VOC tree"):
            load(root=root)


def test_voc_lt(tmp_path):
    root = tmp_path / "VOCdevkit"
    labels = {"2008_000001": ["cat"], "2008_000002": ["dog"]}
    tree = make_tree(root, train=labels, val={"2008_3": ["cow"]})
    make_tree(root, "VOC2007", test={"000001": ["cat", "dog"]})
    with pytest.raises(InputError, match=r"training ids is missing; put it at .*longtail2012"):
        load_voc_lt(root=root)
    for place in (root / "longtail2012", root, tree):
        place.mkdir(exist_ok=True)
        (place / "img_id.txt").write_text("2008_3\n2008_000001\n")
        for given_root in (root, tmp_path):
            data = load_voc_lt(root=given_root)
            assert labels_of(data.train) == {"2008_3": {"cow"}, "2008_000001": {"cat"}}
            assert labels_of(data.test) == {"000001": {"cat", "dog"}}
        (place / "img_id.txt").rename(tmp_path / "ids")
    data = load_data("voc-lt", root=root, id_list=str(tmp_path / "ids"), val_split="train")
    assert (data.name, len(data.train), len(data.val)) == ("voc-lt", 2, 2)
    with pytest.raises(InputError, match="has no VOC2012"):
        load_voc_lt(root=root / "VOC2007")


def test_real_photos(shared_data):
    root = shared_data / "voc_animals/VOCdevkit"
    data = load(root=root)
    assert (len(data.train), len(data.test)) == (1284, 429)
    for name, split in (("train", data.train), ("val", data.test)):
        ids = (root / f"VOC2012/ImageSets/Main/{name}.txt").read_text().split()
        assert list(split.ids) == ids
        counts = Counter()
        for image in ids:  # by regular expression, not by an XML parser
            text = (root / f"VOC2012/Annotations/{image}.xml").read_text()
            counts.update(set(re.findall(r"<object>\s*<name>(\w+)</name>", text)))
        assert split.labels.counts.tolist() == [counts[name] for name in VOC_CLASSES]
        assert all(path.is_file() for path in split.images)


def test_labels_agree_with_voc_lts_own(shared_data):
    data = load(root=shared_data / "voc_animals/VOCdevkit")
    published = pd.read_csv(shared_data / "label_lists/voc_lt_train.csv")
    published = {
        image.split("/")[-1].removesuffix(".jpg"): sorted(map(int, labels.split()))
        for image, labels in zip(published.image, published.labels, strict=True)
    }
    both = 0
    for split in (data.train, data.test):
        for i, name in enumerate(split.ids):
            if name in published:
                both += 1
                assert np.array_equal(split.labels[i], published[name])
    assert both == 44


def test_parts_are_no_objects(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><name> person </name><difficult>1</difficult>"
        "<part><name>head</name></part></object></annotation>"
    )
    assert read_annotation(path) == ["person"]
