import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.data import load as load_data
from ltml.data.coco import load, load_coco_lt, read_instances, read_lt_ids
from ltml.errors import InputError

pytest.importorskip("pycocotools", reason="COCO files are read through pycocotools")


def instances(images=(1, 2, 3)):
    """Two categories out of order, images of which the last has no label."""
    return {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "width": 9, "height": 9} for i in images],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": images[0], "category_id": 7, "bbox": [0, 0, 5, 5.5]},
            {"id": 2, "image_id": images[0], "category_id": 7, "bbox": [1, 0, 5, 5]},
            {"id": 3, "image_id": images[1], "category_id": 3, "bbox": [0, 0, 2, 2], "iscrowd": 1},
            {"id": 4, "image_id": images[1], "category_id": 7, "bbox": [0, 0, 2, 0]},
            {"id": 5, "image_id": images[2], "category_id": 7, "bbox": [0, 0, -1, 2]},
        ],
    }


def write(root, split, dataset):
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(dataset if isinstance(dataset, str) else json.dumps(dataset))
    return path


def write_images(folder, dataset):
    folder.mkdir(parents=True, exist_ok=True)
    for image in dataset["images"]:
        (folder / image["file_name"]).touch()


@pytest.fixture
def root(tmp_path):
    for split in ("train2017", "val2017"):
        write(tmp_path, split, instances())
        write_images(tmp_path / split, instances())
    return tmp_path


def test_labels_and_paths(root, capsys):
    data = load(root=root)
    assert data.class_names == ("cat", "dog")  # by id, not as they stand
    # A crowd counts, a box without area does not, an image without labels stays.
    assert data.train.labels.dense().tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.train.images == [root / "train2017" / f"{i:012}.jpg" for i in (1, 2, 3)]
    assert data.train.ids[0] == "train2017/000000000001.jpg"
    assert capsys.readouterr() == ("", "")  # pycocotools prints otherwise


def test_images_may_be_one_folder_down_and_named_with_folders(root):
    (root / "images").mkdir()
    (root / "val2017").rename(root / "images/val2017")
    dataset = instances()
    dataset["images"][0]["file_name"] = "sub/a.jpg"
    write(root, "train2017", dataset)
    (root / "train2017/sub").mkdir()
    (root / "train2017/sub/a.jpg").touch()
    data = load(root=root)
    assert data.train.images[0] == root / "train2017/sub/a.jpg"
    assert data.test.images[0] == root / "images/val2017/000000000001.jpg"


def changed(change):
    dataset = instances()
    change(dataset)
    return dataset


def edit(key, index, **fields):
    return changed(lambda d: d[key][index].update(fields))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("", "is not JSON: .* line 1, column 1"),
        (json.dumps(instances())[:-9], "is not JSON: .* line 1, column"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("[1]", "holds a list, not a COCO instances file"),
        ({"images": []}, "not a COCO instances file: 'categories' is missing"),
        (changed(lambda d: d.update(images={})), "'images' is not a list"),
        (changed(lambda d: d.update(categories=[])), "there is no class"),
        (changed(lambda d: d.update(images=[], annotations=[])), "has no images"),
        (changed(lambda d: d["images"].append(5)), r"images\[3\] is 5"),
        (changed(lambda d: d["images"][1].pop("id")), r"images\[1\] has no 'id'"),
        (edit("images", 1, id="2"), r"images\[1\] has id '2'; give an integer"),
        (edit("images", 1, id=True), r"images\[1\] has id True"),
        (edit("images", 1, id=1), r"images\[1\] has the id 1 of images\[0\]"),
        (edit("images", 1, file_name=None), r"images\[1\] has file_name None"),
        (edit("images", 1, file_name=f"{1:012}.jpg"), r"images\[1\] has the file_name"),
        (edit("images", 1, file_name="/etc/passwd"), "image 2: '/etc/passwd' may lead out"),
        (edit("images", 1, file_name="../x.jpg"), "image 2: '../x.jpg' may lead out"),
        (edit("images", 1, file_name="\ud800"), "image 2: .* unprintable"),
        (edit("images", 1, file_name="none.jpg"), "image 2: .*train2017/none.jpg is missing"),
        (edit("categories", 1, id=7), r"categories\[1\] has the id 7"),
        (edit("categories", 1, name="dog"), "classes 1 and 2 are both named 'dog'"),
        (edit("categories", 1, name=""), "class 2 is named ''"),
        (edit("annotations", 1, image_id=99), r"annotations\[1\] is of image 99"),
        (edit("annotations", 1, category_id=99), r"annotations\[1\] has category 99"),
        (edit("annotations", 1, category_id=[7]), r"annotations\[1\] has category_id a list"),
        (edit("annotations", 1, id={}), r"annotations\[1\] has id a dict"),
        (edit("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\] has a bbox"),
        (edit("annotations", 1, bbox=[1, 2, 3, None]), r"annotations\[1\] has a bbox"),
        (edit("annotations", 1, bbox=[1, 2, float("nan"), 3]), r"annotations\[1\] has a bbox"),
        (edit("annotations", 1, bbox=[1, 2, 10**400, 3]), r"annotations\[1\] has a bbox"),
        (changed(lambda d: d["annotations"][1].pop("bbox")), r"annotations\[1\] has no 'bbox'"),
    ],
)
def test_broken_file(root, dataset, message):
    path = write(root, "train2017", dataset)
    with pytest.raises(InputError, match=message) as caught:
        load(root=root)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_links_out_of_the_root_are_refused(root, tmp_path_factory):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text(json.dumps(instances()))
    image = root / "train2017/000000000002.jpg"
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(InputError, match=r"image 2: .* leads out of"):
        load(root=root)
    path = root / "annotations/instances_train2017.json"
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(InputError, match="leads out of"):
        load(root=root)


def test_missing_files(root):
    with pytest.raises(InputError, match=r"split 'test' needs .*there are train2017, val2017"):
        load(root=root, test_split="test")
    with pytest.raises(InputError, match="may lead out"):
        load(root=root, test_split="../val2017")
    with pytest.raises(InputError, match="give COCO's folder as root"):
        load(root=root / "annotations")
    with pytest.raises(InputError, match="not a folder"):
        load(root=root / "none")


def test_categories_of_both_splits_must_agree(root):
    write(root, "val2017", edit("categories", 1, name="cow"))
    with pytest.raises(InputError, match="category 3 is 'cat' in the training file and 'cow' in"):
        load(root=root)


def test_split_without_labels(root):
    write(root, "train2017", changed(lambda d: d.update(annotations=[])))
    with pytest.raises(InputError, match="train split has 3 images and no label"):
        load(root=root)


IDS = ["554625", "000000000002", "000000000003.jpg", "train2017/000000000004.jpg"]


def test_lt_ids_of_every_form(tmp_path):
    path = tmp_path / "img_id.txt"
    path.write_text("\n".join(IDS))
    ids = read_lt_ids(path)
    assert list(ids) == [554625, 2, 3, 4]
    assert ids[3] == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val2017/000000000005.jpg", "no image of train2017"),
        ("../train2017/5.jpg", "no image of train2017"),
        ("/train2017/5.jpg", "no image of train2017"),
        ("-5", "no image of train2017"),
        ("5.0", "no image of train2017"),
        ("٥", "no image of train2017"),
        ("5" * 5000, "no image of train2017"),
        ("2", "image 2 stands on line 2 already"),
    ],
)
def test_broken_lt_ids(tmp_path, line, message):
    path = tmp_path / "img_id.txt"
    path.write_text("\n".join([*IDS, line]))
    with pytest.raises(InputError, match=f"line 5: .*{message}"):
        read_lt_ids(path)


def test_coco_lt(tmp_path):
    write(tmp_path, "train2017", instances((1, 2, 554625)))
    write(tmp_path, "val2017", instances((8, 9, 10)))
    write_images(tmp_path / "val2017", instances((8, 9, 10)))
    with pytest.raises(InputError, match=r"put it at .*longtail2017/img_id.txt"):
        load_coco_lt(root=tmp_path)
    # Only the listed images are needed.
    (tmp_path / "train2017").mkdir()
    for name in ("000000554625.jpg", "000000000002.jpg"):
        (tmp_path / "train2017" / name).touch()
    for name in ("img_id.txt", "longtail2017/img_id.pkl", "longtail2017/img_id.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("554625\n2\n")
        data = load_coco_lt(root=tmp_path)
        assert data.train.ids == ["train2017/000000554625.jpg", "train2017/000000000002.jpg"]
        assert data.train.labels.dense().tolist() == [[0, 0], [1, 0]]
        assert len(data.test) == 3  # the one without a label too
        (tmp_path / name).rename(tmp_path / "ids")
    (tmp_path / "longtail2017img_id.pkl").write_text("1\n")  # a stray list of another split
    with pytest.raises(InputError, match="put it at"):
        load_coco_lt(root=tmp_path)
    assert load_data("coco-lt", root=tmp_path, id_list=tmp_path / "ids").train.ids == data.train.ids
    (tmp_path / "ids").write_text("2\n77\n")
    with pytest.raises(InputError, match="ids, line 2: there is no image 77 in"):
        load_coco_lt(root=tmp_path, id_list=tmp_path / "ids")
    (tmp_path / "ids").write_text("1\n")
    with pytest.raises(InputError, match=r"image 1: .*train2017/000000000001.jpg is missing"):
        load_coco_lt(root=tmp_path, id_list=tmp_path / "ids")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from(["images", "categories", "annotations"]),
    st.integers(0, 1),
    st.sampled_from(
        ["id", "file_name", "name", "image_id", "category_id", "bbox", "iscrowd", None]
    ),
    VALUES,
)
@settings(deadline=None)
def test_any_value_in_any_place_is_read_or_an_error(tmp_path_factory, key, index, field, value):
    dataset = instances()
    if field is None:
        dataset[key] = value
    else:
        dataset[key][index][field] = value
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(dataset))
    coco = read_or_error(read_instances, path)
    if coco is not None:
        assert set(coco.getCatIds()) == {category["id"] for category in coco.dataset["categories"]}


@given(st.one_of(st.binary(max_size=50), VALUES.map(lambda value: json.dumps(value).encode())))
@settings(deadline=None)
def test_any_bytes_are_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.json"
    path.write_bytes(content)
    assert read_or_error(read_instances, path) is None


@given(st.data())
@settings(deadline=None)
def test_any_cut_is_an_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "cut.json"
    text = json.dumps(instances())
    path.write_text(text[: data.draw(st.integers(0, len(text) - 1))])
    assert read_or_error(read_instances, path) is None


@given(st.one_of(st.text(max_size=20), st.from_regex(r"(train2017/)?[0-9]{1,15}(\.jpg)?\Z")))
@settings(deadline=None)
def test_any_lt_line_is_an_id_or_an_error(tmp_path_factory, line):
    path = tmp_path_factory.getbasetemp() / "lt.txt"
    path.write_bytes(line.encode())
    ids = read_or_error(read_lt_ids, path)
    if ids is not None:
        assert all(0 <= image < 10**12 for image in ids)


@pytest.mark.parametrize(
    ("folder", "train", "test"),
    [("coco128", "train2017", "val2017"), ("photo_mosaics", "train", "test")],
)
def test_real_photos(shared_data, folder, train, test):
    data = load(root=shared_data / folder, train_split=train, test_split=test)
    for name, split in ((train, data.train), (test, data.test)):
        path = shared_data / folder / "annotations" / f"instances_{name}.json"
        raw = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in raw["categories"]}
        pairs = {
            (entry["image_id"], names[entry["category_id"]])
            for entry in raw["annotations"]
            if min(entry["bbox"][2:]) > 0
        }
        counts = Counter(name for _, name in pairs)
        assert data.class_names == tuple(names[key] for key in sorted(names))
        assert split.labels.counts.tolist() == [counts[name] for name in data.class_names]
        assert len(split.images) == len(raw["images"])
        assert all(path.is_file() for path in split.images)
    if folder == "photo_mosaics":  # VOC-LT's counts, as its README says
        assert sorted(data.train.labels.counts)[:3] == [4, 5, 6]
        assert data.train.labels.counts.max() == 775
        assert set(data.test.labels.counts) == {150}


def test_labels_agree_with_coco_lts_own(shared_data):
    """coco128 holds the first images of val2017, so their published labels are at hand."""
    data = load(root=shared_data / "coco128")
    both = 0
    for split, part in ((data.train, "train"), (data.test, "test")):
        table = pd.read_csv(shared_data / f"label_lists/coco_lt_{part}.csv", keep_default_na=False)
        published = {
            image: sorted(map(int, labels.split()))
            for image, labels in zip(table.image, table.labels, strict=True)
        }
        for i, name in enumerate(split.ids):
            if name in published:
                both += 1
                assert np.array_equal(split.labels[i], published[name]), name
    assert both >= 128


def test_lt_list_of_the_published_length(shared_data, tmp_path):
    images = pd.read_csv(shared_data / "label_lists/coco_lt_train.csv").image
    (tmp_path / "img_id.txt").write_text("\n".join(images))
    assert len(read_lt_ids(tmp_path / "img_id.txt")) == 1909
