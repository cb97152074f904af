import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.data import load as load_data
from ltml.data.voc import VOC_CLASSES, load, load_voc_lt, read_annotation
from ltml.errors import InputError


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


@pytest.mark.parametrize("up", [0, 1, 2])
def test_root_is_the_tree_the_devkit_or_its_parent(tree, up):
    root = [tree, *tree.parents][up]
    assert load(root=root).train.ids == ["000001", "000002"]
    assert load(root=root, train_split="VOC2012/train").train.ids == ["000001", "000002"]


def test_years(tree):
    make_tree(tree.parent, "VOC2007", train={"000009": ["cow"]}, test={"000010": ["cow"]})
    with pytest.raises(InputError, match="give one of VOC2007/train, VOC2012/train"):
        load(root=tree.parent)
    data = load(root=tree.parent, train_split="VOC2007/train", test_split="test")
    assert (data.train.ids, data.test.ids) == (["000009"], ["000010"])
    with pytest.raises(InputError, match=r"no 'VOC2008'.*it has VOC2007, VOC2012"):
        load(root=tree.parent, train_split="VOC2008/train")


def test_split_may_be_any_file_of_ids(tree, tmp_path, monkeypatch):
    listing = tmp_path / "mine.txt"
    listing.write_text("000003 -1\n000001  1\n")  # flags of a per-class set are ignored
    make_tree(tree.parent, "VOC2007", test={"000010": ["cow"]})
    monkeypatch.chdir(tmp_path)
    for split in (str(listing), "mine.txt"):
        data = load(root=tree.parent, train_split=split)
        assert labels_of(data.train) == {"000003": {"cat"}, "000001": {"cat", "person"}}
    listing.write_text("000010\n000001\n")  # from two years
    assert load(root=tree.parent, train_split=str(listing)).train.ids == ["000010", "000001"]
    make_tree(tree.parent, "VOC2007", test={"000001": ["cow"]})
    with pytest.raises(InputError, match="line 2: '000001' is in VOC2007 and VOC2012"):
        load(root=tree.parent, train_split=str(listing))


def test_other_classes_and_suffixes(tmp_path):
    tree = make_tree(tmp_path, "VOC2020", train={"a": ["zebra"]}, val={"b": ["okapi", "zebra"]})
    (tree / "JPEGImages/b.jpg").rename(tree / "JPEGImages/b.png")
    data = load(root=tmp_path, classes=["okapi", "zebra"])
    assert data.train.labels.dense().tolist() == [[0, 1]]
    assert data.test.images == [tree / "JPEGImages/b.png"]


def test_parts_are_no_objects(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><object><name> person </name><difficult>1</difficult>"
        "<part><name>head</name></part></object></annotation>"
    )
    assert read_annotation(path) == ["person"]


def break_tree(tree, what):
    train = tree / "ImageSets/Main/train.txt"
    xml, image = tree / "Annotations/000002.xml", tree / "JPEGImages/000002.jpg"
    outside = tree.parents[1] / "secret"
    outside.write_text(annotation("cat"))
    bomb = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    {
        "no image set": train.unlink,
        "no image": image.unlink,
        "no annotation": xml.unlink,
        "empty split": lambda: train.write_text("\n"),
        "twice": lambda: train.write_text("000001\n000002\n000001\n"),
        "absolute": lambda: train.write_text("000001\n/etc/passwd\n"),
        "dots": lambda: train.write_text("000001\n../../secret\n"),
        "slash": lambda: train.write_text("000001\na/b\n"),
        "list not UTF-8": lambda: train.write_bytes(b"000001\n\xe9\n"),
        "truncated": lambda: xml.write_text(annotation("dog")[:-5]),
        "not XML": lambda: xml.write_bytes(b"\x00\x01\x02"),
        "empty": lambda: xml.write_text(""),
        "not UTF-8": lambda: xml.write_bytes(annotation("caf\xe9").encode("latin-1")),
        "UTF-16": lambda: xml.write_text(annotation("dog"), encoding="utf-16"),
        "other root": lambda: xml.write_text("<svg/>"),
        "no objects": lambda: xml.write_text(annotation()),
        "no name": lambda: xml.write_text(annotation("dog", " ")),
        "class": lambda: xml.write_text(annotation("dog", "unicorn")),
        "bomb": lambda: xml.write_text(
            f'<!DOCTYPE a [<!ENTITY e0 "x">{bomb}]>' + annotation("&e9;")
        ),
        "huge": lambda: xml.write_text(annotation(*["dog"] * 200_000)),
        "image link": lambda: (image.unlink(), image.symlink_to(outside)),
        "annotation link": lambda: (xml.unlink(), xml.symlink_to(outside)),
        "image set link": lambda: (train.unlink(), train.symlink_to(outside)),
    }[what]()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no image set", "split 'train' needs the image set .*Main/train.txt, .*there are val"),
        ("no image", "train.txt, line 2: '000002' has no image .*JPEGImages/000002.jpg"),
        ("no annotation", "train.txt, line 2: '000002' has no annotation .*/000002.xml"),
        ("empty split", "train.txt is empty"),
        ("twice", "train.txt, line 3: '000001' stands on line 1"),
        ("absolute", "train.txt, line 2: '/etc/passwd' may lead out"),
        ("dots", "train.txt, line 2: '../../secret' may lead out"),
        ("slash", "train.txt, line 2: 'a/b' holds a slash"),
        ("list not UTF-8", "train.txt is not UTF-8 text: byte 7"),
        ("truncated", "000002.xml is not well-formed XML: .* line 1, column"),
        ("not XML", "000002.xml is not well-formed XML"),
        ("empty", "000002.xml is not well-formed XML"),
        ("not UTF-8", "000002.xml is not UTF-8"),
        ("UTF-16", "000002.xml is not UTF-8"),
        ("other root", "000002.xml holds <svg>"),
        ("no objects", "000002.xml has no <object>"),
        ("no name", "000002.xml: object 2 has no <name>"),
        ("class", "000002.xml: class 'unicorn' is not among the 20 classes aeroplane, .*tvmonitor"),
        ("bomb", "000002.xml declares a document type"),
        ("huge", r"000002.xml has [0-9,]+ bytes"),
        ("image link", "train.txt, line 2: .*000002.jpg leads out of"),
        ("annotation link", "train.txt, line 2: .*000002.xml leads out of"),
        ("image set link", "train.txt leads out of"),
    ],
)
def test_broken_tree(tree, what, message):
    break_tree(tree, what)
    with pytest.raises(InputError, match=message) as caught:
        load(root=tree.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "split", ["", "..", "../train", "a" * 300, "x\n", "none.txt", "a" * 300 + ".txt"]
)
def test_unknown_split(tree, split):
    with pytest.raises(InputError, match="split"):
        load(root=tree.parent, train_split=split)


def test_root_without_tree(tmp_path):
    with pytest.raises(InputError, match="holds no VOC tree"):
        load(root=tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        load(root=tmp_path / "none")
    with pytest.raises(InputError, match="both named 'cat'"):
        load(root=tmp_path, classes=["cat", "cat"])


def test_very_deep_xml_is_no_crash(tmp_path):
    path = tmp_path / "deep.xml"
    path.write_text("<annotation>" + "<object>" * 200_000 + "</object>" * 200_000 + "</annotation>")
    with pytest.raises(InputError, match="no <name>"):
        read_annotation(path)


NAMES = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1)


@given(st.lists(NAMES.filter(str.strip), min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_any_name_reads_back_and_any_cut_is_an_error(tmp_path_factory, names, data):
    path = tmp_path_factory.getbasetemp() / "any.xml"
    escaped = [n.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for n in names]
    xml = annotation(*escaped).encode()
    path.write_bytes(xml)
    read = read_or_error(read_annotation, path)
    if not re.search("[\ufffe\uffff]", "".join(names)):  # which are no XML characters
        assert read == [name.strip() for name in names]
    path.write_bytes(xml[: data.draw(st.integers(0, len(xml) - 1))])
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_annotation(path)


TAGS = [
    "<annotation>",
    "</annotation>",
    "<object>",
    "</object>",
    "<name>",
    "</name>",
    "cat",
    "<a/>",
]
TAGS += [
    "&amp;",
    "&x;",
    "<!DOCTYPE a>",
    "<![CDATA[",
    "]]>",
    "<?x?>",
    "<!--",
    "-->",
    "\x00",
    "\ufffe",
    "&#0;",
]


@given(
    st.one_of(st.binary(max_size=100), st.lists(st.sampled_from(TAGS), max_size=12).map("".join))
)
@settings(deadline=None)
def test_any_bytes_are_an_annotation_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    names = read_or_error(read_annotation, path)
    if names is not None:
        assert names
        assert all(names)


def test_voc_lt(tmp_path):
    root = tmp_path / "VOCdevkit"
    tree = make_tree(
        root, train={"2008_000001": ["cat"], "2008_000002": ["dog"]}, val={"2008_3": ["cow"]}
    )
    make_tree(root, "VOC2007", test={"000001": ["cat", "dog"]})
    with pytest.raises(
        InputError, match=r"training ids is missing; put img_id.txt at .*longtail2012"
    ):
        load_voc_lt(root=root)
    for place in (root / "longtail2012", root, tree):
        place.mkdir(exist_ok=True)
        (place / "img_id.txt").write_text("2008_3\n2008_000001\n")
        for given_root in (root, tmp_path):
            data = load_voc_lt(root=given_root)
            assert labels_of(data.train) == {"2008_3": {"cow"}, "2008_000001": {"cat"}}
            assert labels_of(data.test) == {"000001": {"cat", "dog"}}
        (place / "img_id.txt").rename(tmp_path / "elsewhere.txt")
    assert load_voc_lt(root=root, id_list=tmp_path / "elsewhere.txt").train.ids == data.train.ids
    assert load_data("voc-lt", root=root, id_list=tmp_path / "elsewhere.txt").name == "voc-lt"
    with pytest.raises(InputError, match="has no VOC2012"):
        load_voc_lt(root=root / "VOC2007", id_list=tmp_path / "elsewhere.txt")


def test_a_pickled_list_is_not_unpickled(tmp_path):
    root = tmp_path / "VOCdevkit"
    make_tree(root, train={"2008_000001": ["cat"]})
    (root / "img_id.txt").write_bytes(b"\x80\x04\x95\x0b\x00\x00\x00.")
    with pytest.raises(InputError, match=r"img_id.txt is not UTF-8 text"):
        load_voc_lt(root=root)


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
        assert dict(zip(VOC_CLASSES, split.labels.counts, strict=True)) == {
            name: counts[name] for name in VOC_CLASSES
        }
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
