import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from ltml.core.errors import InputError
from ltml.data import load as load_data
from ltml.data.coco import load, load_coco_lt, read_instances, read_lt_ids


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


def test_labels_and_paths(root):
    data = load(root=root)
    assert data.class_names == ("cat", "dog")  # by id, not in the order of the file
    # A crowd counts, a box without area does not, an image without labels stays.
    assert data.train.labels.dense().tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.train.images == [root / "train2017" / f"{i:012}.jpg" for i in (1, 2, 3)]
    assert data.train.ids[0] == "train2017/000000000001.jpg"
    assert data.val is None
    data = load(root=root, val_split="train2017")
    assert data.val.labels == data.train.labels


def test_agrees_with_pycocotools(shared_data):
    """The same images, categories and boxes as COCO's own reader finds."""
    reader = pytest.importorskip("pycocotools.coco", reason="pycocotools is the reference")
    path = shared_data / "coco128/annotations/instances_val2017.json"
    theirs, ours = reader.COCO(path), read_instances(path)
    assert sorted(ours.images) == sorted(theirs.getImgIds())
    names = [theirs.loadCats(i)[0]["name"] for i in sorted(theirs.getCatIds())]
    assert list(ours.class_names) == names
    for image in ours.images:
        boxes = theirs.loadAnns(theirs.getAnnIds(image))
        wanted = {theirs.loadCats(box["category_id"])[0]["name"] for box in boxes}
        assert {names[c] for c in ours.labels.get(image, ())} == wanted


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


@pytest.mark.parametrize("folder", ["train2017", "annotations"])
def test_links_to_another_disk_are_followed(root, tmp_path_factory, folder):
    """A folder of images, a file of annotations or a single image may be anywhere."""
    disk = tmp_path_factory.mktemp("disk")
    (root / folder).rename(disk / folder)
    (root / folder).symlink_to(disk / folder)
    image = root / "train2017/000000000002.jpg"
    image.rename(disk / "photo.jpg")
    image.symlink_to(disk / "photo.jpg")
    data = load(root=root)
    assert data.train.labels.dense().tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.train.images[1].resolve() == disk / "photo.jpg"


def test_a_file_name_may_be_absolute_or_lead_elsewhere(root, tmp_path_factory):
    disk = tmp_path_factory.mktemp("disk")
    dataset = instances()
    for entry, name in zip(dataset["images"], ("/a.jpg", "/b.jpg"), strict=False):
        (disk / name[1:]).touch()
        entry["file_name"] = f"{disk}{name}"
    dataset["images"][1]["file_name"] = f"../../{disk.name}/b.jpg"
    write(root, "train2017", dataset)
    images = load(root=root).train.images
    assert [path.resolve() for path in images[:2]] == [disk / "a.jpg", disk / "b.jpg"]


def changed(change):
    dataset = instances()
    change(dataset)
    return dataset


def edit(key, index, **fields):
    return changed(lambda d: d[key][index].update(fields))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (json.dumps(instances())[:-9], "is not JSON: .* line 1, column"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("[1]", "is not a COCO instances file"),
        ({"images": []}, "not a COCO instances file: it has no list 'categories'"),
        (changed(lambda d: d.update(categories=[], annotations=[])), "there is no class"),
        (changed(lambda d: d["images"].append(5)), r"images\[3\] has id None; give int"),
        (edit("images", 1, id=True), r"images\[1\] has id True; give int"),
        (edit("images", 1, id=1), r"images\[1\] has id 1, as images\[0\] has"),
        (edit("images", 1, file_name=f"./{1:012}.jpg"), r"images\[1\] has file_name .* as images"),
        (edit("images", 1, file_name="none.jpg"), "image 2, 'none.jpg' in .*train2017, is missing"),
        (edit("categories", 1, name="dog"), "classes 1 and 2 are both named 'dog'"),
        (edit("annotations", 1, image_id=99), r"annotations\[1\] is of image 99"),
        (edit("annotations", 1, category_id=99), r"annotations\[1\] .*category 99"),
        (edit("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\]'s bbox"),
        (edit("annotations", 1, bbox=[1, 2, 10**400, 3]), r"annotations\[1\]'s bbox"),
    ],
)
def test_broken_file(root, dataset, message):
    path = write(root, "train2017", dataset)
    with pytest.raises(InputError, match=message) as caught:
        load(root=root)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files(root):
    with pytest.raises(
        InputError, match=r"split 'test' \(test_split\) .*there are train2017, val2017"
    ):
        load(root=root, test_split="test")
    with pytest.raises(InputError, match="give the folder that holds both as root"):
        load(root=root / "annotations")
    with pytest.raises(InputError, match="give the folder of COCO as root"):
        load(root=root / "train2017")


def test_categories_of_both_splits_must_agree(root):
    write(root, "val2017", edit("categories", 1, name="cow"))
    with pytest.raises(InputError, match=r"train split .* the test split .*'cat', 'cow'"):
        load(root=root)


IDS = ["554625", "000000000002", "000000000003.jpg", "train2017/000000000004.jpg"]


def test_lt_ids_of_every_form(tmp_path):
    path = tmp_path / "img_id.txt"
    path.write_text("\n".join(IDS))
    assert list(read_lt_ids(path)) == [554625, 2, 3, 4]
    assert read_lt_ids(path)[3] == f"{path}, line 3"


@pytest.mark.parametrize(
    "line", ["val2017/000000000005.jpg", "../train2017/5.jpg", "-5", "5.0", "٥", "5" * 5000, "2"]
)
def test_broken_lt_ids(tmp_path, line):
    path = tmp_path / "img_id.txt"
    path.write_text("\n".join([*IDS, line]))
    with pytest.raises(InputError, match=r"line 5: .*(no image of train2017|earlier line)"):
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
    data = load_data("coco-lt", root=tmp_path, id_list=tmp_path / "ids", val_split="val2017")
    assert (len(data.train), len(data.val)) == (2, 3)
    (tmp_path / "ids").write_text("2\n77\n")
    with pytest.raises(InputError, match="ids, line 2: image 77 is not in the instances file"):
        load_coco_lt(root=tmp_path, id_list=tmp_path / "ids")
    (tmp_path / "ids").write_text("1\n")
    with pytest.raises(InputError, match=r"ids, line 1: .*'000000000001.jpg' in .* is missing"):
        load_coco_lt(root=tmp_path, id_list=tmp_path / "ids")


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
