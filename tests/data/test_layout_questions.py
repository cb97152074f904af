"""What the readers of layouts ask or refuse, and that their remedies work when taken literally."""

import json
import re
import shutil

import numpy as np
import pytest
from layout_trees import (
    CLASSES,
    TREES,
    WANT,
    annotation,
    coco_of,
    coco_plain,
    cvat,
    label_studio_min,
    lvis,
    open_images,
    paddle,
    photo,
    roboflow,
    text,
    voc,
    yolo,
)

from ltml.core.errors import InputError
from ltml.data import load


def refusal(name, root, **options) -> str:
    """The one line that a reader refuses with."""
    with pytest.raises(InputError) as caught:
        load(name, root=root, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def options_in(message: str, option: str) -> dict:
    """The first value that a message proposes for an option, as the command line takes it."""
    return {option: re.search(rf"{option}='?([\w./-]+)", message)[1]}


def labels_of(split) -> list[set[str]]:
    return [{split.labels.class_names[c] for c in split.labels[i]} for i in range(len(split))]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roboflow", "coco-plain", "voc", "cvat", "datumaro", "paddle"])
def test_a_missing_image_is_named_and_may_be_left_out(root, name):
    build, reader = TREES[name]
    build(root)
    next(path for path in root.rglob("*") if "a2" in path.name and path.suffix != ".xml").unlink()
    message = refusal(reader, root)
    assert "a2" in message
    assert "is missing; add it" in message
    data = load(reader, root=root, **options_in(message, "missing"))
    assert len(data.train) == len(WANT["train"]) - 1
    assert len(data.test) == len(WANT["test"])


def test_images_elsewhere_ask_for_another_root(root):
    coco_plain(root / "labels")
    shutil.move(root / "labels/photos", root / "jpegs")
    assert "give the folder that holds both as root" in refusal("coco", root / "labels")
    assert len(load("coco", root=root).train) == 5


def test_a_photo_of_another_split_is_no_substitute(root):
    """Folders of splits often call their photos alike."""
    for split in ("train", "test"):
        images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(1, 4)]
        content = coco_of("train") | {"images": images, "annotations": []}
        content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]
        text(root / f"annotations/{split}.json", content)
        for image in images:
            photo(root / split / image["file_name"])
    assert [p.parent.name for p in load("coco", root=root).train.images] == ["train"] * 3
    (root / "train/2.jpg").unlink()
    message = refusal("coco", root)
    assert "'2.jpg'" in message
    assert len(load("coco", root=root, **options_in(message, "missing")).train) == 2


def test_two_files_that_fit_are_asked_about(root):
    coco_plain(root)
    shutil.copytree(root / "photos", root / "again")
    message = refusal("coco", root)
    assert "may be" in message
    pattern = re.search("--image-pattern '([^']+)'", message)[1]
    assert len(load("coco", root=root, image_pattern=pattern).train) == 5


def test_a_photo_in_two_splits_is_an_error(root):
    coco_plain(root)
    edit(
        root / "annotations/photos-test.json",
        lambda d: d["images"].append({"id": 9, "file_name": "a1.jpg"}),
    )
    message = refusal("coco", root)
    assert "1 image is in both splits 'train' and 'test', such as 'a1.jpg'" in message
    edit(root / "annotations/photos-test.json", lambda d: d["images"].pop())
    assert len(load("coco", root=root).test) == 2


# --- splits --------------------------------------------------------------------------------------


def test_splits_without_roles_are_chosen(root):
    yolo(root)
    for split, other in (("train", "north"), ("val", "south"), ("test", "west")):
        (root / "images" / split).rename(root / "images" / other)
        (root / "labels" / split).rename(root / "labels" / other)
    message = refusal("yolo", root)
    assert "has the splits north, south, west; choose with --train-split" in message
    assert "choose the one to test on" in refusal("yolo", root, train_split="north")
    data = load("yolo", root=root, train_split="north", test_split="west")
    assert (len(data.train), len(data.test), data.val) == (5, 2, None)
    assert "did you mean 'north'" in refusal("yolo", root, train_split="North")


def test_a_lone_test_split_is_no_training_split(root):
    coco_plain(root)
    for split in ("val", "test"):
        (root / f"annotations/photos-{split}.json").unlink()
    path = root / "annotations/photos-train.json"
    path = path.rename(root / "annotations/photos-val.json")
    message = refusal("coco", root)
    data = load("coco", root=root, **options_in(message, "train_split"))
    assert len(data.train) + len(data.test) == 5
    edit(path, lambda d: d.update(images=d["images"][:2], annotations=d["annotations"][:1]))
    assert "has 2 images, too few to hold out" in refusal("coco", root, train_split="val")


def test_two_training_splits_are_asked_about(root):
    coco_plain(root)
    shutil.copy(root / "annotations/photos-train.json", root / "annotations/photos_train2014.json")
    message = refusal("coco", root)
    assert "several splits that may be the train split: train, train2014" in message
    assert len(load("coco", root=root, train_split="train2014").train) == 5


def test_files_of_one_split_go_by_their_own_names(root):
    coco_plain(root)
    for name in ("lvis_v1_train", "old/lvis_v1_train", "instances_val", "instances_raw_val"):
        path = root / f"annotations/{name}.json"
        path.parent.mkdir(exist_ok=True)
        shutil.copy(root / f"annotations/photos-{'val' if 'val' in name else 'train'}.json", path)
    edit(root / "annotations/instances_val.json", lambda d: d["categories"].reverse())
    message = refusal("coco", root)
    names = "annotations/lvis_v1_train, annotations/old/lvis_v1_train, photos-train"
    assert f"may be the train split: {names}; choose with --train-split" in message
    message = refusal("coco", root, train_split="photos-train")
    assert "may be the val split: raw_val, val, photos-val; choose with --val-split" in message
    (root / "annotations/photos-test.json").unlink()
    message = refusal("coco", root, train_split="photos-train")  # it is a split to test on then
    assert "may be the test split: raw_val, val, photos-val; choose with --test-split" in message
    data = load("coco", root=root, train_split="annotations/old/lvis_v1_train", test_split="val")
    assert (len(data.train), len(data.test)) == (5, 2)  # by its whole name before all others


def test_images_may_have_ids_of_text_and_annotations_an_empty_box(root):
    coco_plain(root)
    want = load("coco", root=root)

    def as_text(d):
        for image in d["images"]:
            image["id"] = f"x{image['id']}"
        for entry in d["annotations"]:
            entry.update(image_id=f"x{entry['image_id']}", bbox=[])

    for split in ("train", "val", "test"):
        edit(root / f"annotations/photos-{split}.json", as_text)
    data = load("coco", root=root)
    for name, split in data.splits.items():
        assert split.labels.dense().tolist() == want.splits[name].labels.dense().tolist()


def test_a_data_set_one_folder_down_is_named(root):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = root / "inner" / split / name
            folder.mkdir(parents=True)
            for i in range(3):
                (folder / f"{split}{name}{i}.jpg").touch()
    message = refusal("auto", root)
    assert f"give that as root: --root {root / 'inner'}" in message
    assert len(load("auto", root=root / "inner").train) == 6


def test_a_part_is_held_out_of_an_only_split(root):
    label_studio_min(root)
    data = load("label-studio", root=root, test_fraction=0.4)
    assert (len(data.train), len(data.test)) == (5, 4)
    same = load("label-studio", root=root, test_fraction="0.4")
    assert same.test.ids == data.test.ids


# --- auto ----------------------------------------------------------------------------------------


def test_two_layouts_are_asked_about(root):
    roboflow(root)
    voc(root)
    message = refusal("auto", root)
    found = dict(re.findall(r"--data ([\w-]+): ([^;]+)", message))
    assert set(found) == {"roboflow", "voc"}
    for name in found:
        assert load(name, root=root).name == name


def test_a_folder_without_a_layout_goes_to_the_tables(root):
    photo(root / "1.jpg")
    with pytest.raises(InputError) as auto:
        load("auto", root=root)
    with pytest.raises(InputError) as folder:
        load("folder", root=root)
    assert str(auto.value) == str(folder.value)
    with pytest.raises(InputError, match="'auto' needs root"):
        load("auto")


def test_a_table_comes_before_folders_of_images(root):
    for i in range(4):
        photo(root / f"cat/{i}.jpg")
        photo(root / f"dog/{i}b.jpg")
    assert load("auto", root=root).name == "class-folders"
    lines = [f"{'cat' if i < 3 else 'dog'}/{i}{'b' * (i > 2)}.jpg,x" for i in range(4)]
    for split, part in (("train", lines[:2]), ("test", lines[2:])):
        text(root / f"{split}.csv", "\n".join(["image,labels", *part]))
    assert load("auto", root=root).class_names == ("x",)


# --- COCO, LVIS, Objects365 ----------------------------------------------------------------------


def test_categories_may_be_chosen(root):
    coco_plain(root)
    data = load("coco", root=root, classes=["dog", "cat"])
    assert data.class_names == ("dog", "cat")
    assert labels_of(data.train) == [row - {"traffic light"} for row in WANT["train"].values()]
    assert "has no category 'cow'" in refusal("coco", root, classes=["cow"])


def test_an_image_needs_a_name_or_an_address(root):
    coco_plain(root)
    path = root / "annotations/photos-train.json"
    edit(path, lambda d: d["images"][1].pop("file_name"))
    assert "images[1] has neither file_name nor coco_url; give one" in refusal("coco", root)
    edit(path, lambda d: d["images"][1].update(coco_url="http://x/photos/a2.jpg"))
    assert labels_of(load("coco", root=root).train)[1] == {"cat", "dog"}


def test_a_bad_box_may_be_left_out(root):
    coco_plain(root)
    path = root / "annotations/photos-train.json"
    edit(path, lambda d: d["annotations"][0].update(bbox=[1, 2]))
    assert "bbox is not [x, y, width, height]; correct it, or leave it out" in refusal("coco", root)
    edit(path, lambda d: d["annotations"][0].pop("bbox"))
    assert labels_of(load("coco", root=root).train)[0] == {"cat"}


def test_lvis_contradictions_are_named(root):
    lvis(root)
    path = root / "lvis_v1_train.json"
    edit(path, lambda d: d["images"][0].update(neg_category_ids=[1]))
    assert "image 1 has an annotation of a category that is among its" in refusal("lvis", root)
    edit(path, lambda d: d["images"][0].update(neg_category_ids=[2]))
    assert load("lvis", root=root).train.labels.dense()[0].tolist()[:2] == [1, 0]
    edit(path, lambda d: d["images"][0].pop("neg_category_ids"))
    assert "neg_category_ids is no list of categories' ids; give one" in refusal("lvis", root)


# --- VOC -----------------------------------------------------------------------------------------


def small_voc(root, tree="mine", hard=()):
    rows = {"a1": {"person", "helmet"}, "a2": set(), "a3": {"helmet"}, "a4": {"person"}}
    for name, labels in rows.items():
        text(root / tree / f"Annotations/{name}.xml", annotation(labels, hard))
        photo(root / tree / f"JPEGImages/{name}.jpg")
    text(root / tree / "ImageSets/Main/train.txt", "a1\na2\n")
    text(root / tree / "ImageSets/Main/test.txt", "a3\na4\n")


def test_an_annotation_without_an_object_is_an_image_without_a_label(root):
    small_voc(root)
    assert labels_of(load("voc", root=root).train) == [{"person", "helmet"}, set()]


def test_a_class_that_is_not_vocs_is_asked_about_in_vocs_own_tree(root):
    small_voc(root, "VOC2012")
    message = refusal("voc", root)
    assert "class 'helmet' is not among the 20 classes" in message
    data = load("voc", root=root, **options_in(message, "classes"))
    assert data.class_names == ("helmet", "person")
    assert load("voc", root=root, classes="person,helmet").class_names == ("person", "helmet")


@pytest.mark.parametrize(
    ("difficult", "row"), [("present", [1, 1]), ("absent", [0, 1]), ("unknown", [np.nan, 1])]
)
def test_difficult_objects(root, difficult, row):
    small_voc(root, hard=["helmet"])
    data = load("voc", root=root, difficult=difficult, test_split="train")
    assert np.array_equal(data.train.labels.dense()[0], row, equal_nan=True)
    assert not data.train.labels.dense()[1].any()


@pytest.mark.parametrize("difficult", ["present", "absent", "unknown"])
def test_flags_of_classification_sets(root, difficult):
    """1, -1, and 0 for difficult; a class may have an underscore in its name."""
    for i in range(1, 5):
        photo(root / f"JPEGImages/{i}.jpg")
    text(root / "ImageSets/Main/train.txt", "1\n2\n3\n")
    text(root / "ImageSets/Main/val.txt", "4\n")
    for name, flags in {"dog": (1, -1, 0), "fire_truck": (-1, 1, 1)}.items():
        lines = [f"{i} {flag:2}\n" for i, flag in enumerate(flags, 1)]
        text(root / f"ImageSets/Main/{name}_train.txt", "".join(lines))
        text(root / f"ImageSets/Main/{name}_val.txt", "4 1\n")
    data = load("voc", root=root, difficult=difficult, classes="found")
    assert data.class_names == ("dog", "fire_truck")
    third = {"present": [1, 1], "absent": [0, 1], "unknown": [np.nan, 1]}[difficult]
    dense = data.train.labels.dense().numpy()
    assert np.array_equal(dense, [[1, 0], [0, 1], third], equal_nan=True)
    text(root / "ImageSets/Main/dog_train.txt", "1 1\n2 2\n")
    assert "dog_train.txt, line 2: '2 2' is no image" in refusal("voc", root, classes="found")


def test_objects_in_another_place_are_refused_until_moved(root):
    small_voc(root)
    path = root / "mine/Annotations/a1.xml"
    good = path.read_text()
    path.write_text(good.replace("<object>", "<a><object>").replace("</object>", "</object></a>"))
    assert "does not hold its <object>s directly in an <annotation>; put" in refusal("voc", root)
    path.write_text(good)
    assert len(load("voc", root=root).train) == 2


# --- Label Studio --------------------------------------------------------------------------------


def min_file(root):
    return next(root.glob("project*.json"))


def test_two_controls_are_asked_about(root):
    label_studio_min(root)
    edit(min_file(root), lambda rows: [row.update(weather="sunny") for row in rows])
    for control, wanted in (("choice", 3), ("weather", 1), ("choice,weather", 4)):
        data = load("label-studio", root=root, control=control)
        assert len(data.class_names) == wanted
    edit(min_file(root), lambda rows: [row.update(choice="cat") for row in rows])
    message = refusal("label-studio", root)
    assert "the labels may be in choice, weather; choose" in message
    data = load("label-studio", root=root, **options_in(message, "control"))
    assert data.class_names == ("cat",)
    assert "has no labelling tag 'x'" in refusal("label-studio", root, control="x")


@pytest.mark.parametrize("merge", ["any", "all", "unknown"])
def test_annotators_who_differ_are_merged_as_asked(root, merge):
    label_studio_min(root)
    edit(min_file(root), lambda rows: rows.append(rows[0] | {"choice": "dog", "annotation_id": 99}))
    message = refusal("label-studio", root)
    assert "annotators differ in 'cat'" in message
    assert options_in(message, "merge") == {"merge": "any"}
    data = load("label-studio", root=root, merge=merge, test_fraction=0.2)
    split, i = next(
        (s, i)
        for s in data.splits.values()
        for i, path in enumerate(s.images)
        if path.name == "my a1.jpg"
    )
    row = split.labels.dense().numpy()[i].astype(float)
    wanted = {"any": [1, 1, 0], "all": [0, 0, 0], "unknown": [np.nan, np.nan, 0]}[merge]
    assert np.array_equal(row, wanted, equal_nan=True)


def test_regions_give_labels_too(root):
    label_studio_min(root)

    def boxes(rows):
        for row in rows:
            given = row.pop("choice", None)
            names = given["choices"] if isinstance(given, dict) else [given] if given else []
            row["boxes"] = [{"x": 1, "y": 1, "rectanglelabels": [name]} for name in names]

    before = load("label-studio", root=root)
    edit(min_file(root), boxes)
    data = load("label-studio", root=root)
    assert labels_of(data.train) == labels_of(before.train)


def test_an_export_without_annotated_tasks_is_said(root):
    label_studio_min(root)
    edit(min_file(root), lambda rows: [row.update(annotation_id=None) for row in rows])
    assert "holds no annotated task; annotate some" in refusal("label-studio", root)


# --- CVAT, FiftyOne, Open Images, lists, YOLO, Roboflow -------------------------------------------


@pytest.mark.parametrize("kinds", ["tags", "shapes", "all"])
def test_tags_beside_shapes_are_asked_about(root, kinds):
    cvat(root)
    path = root / "annotations.xml"
    box = '<box label="bird" xtl="1" ytl="1" xbr="2" ybr="2"/></image>'
    path.write_text(path.read_text().replace("</image>", box))
    message = refusal("cvat", root)
    assert options_in(message, "kinds") == {"kinds": "tags"}
    data = load("cvat", root=root, kinds=kinds)
    wanted = {"tags": CLASSES, "shapes": ("bird",), "all": (*CLASSES, "bird")}[kinds]
    assert data.class_names == wanted


def test_xml_with_entities_is_refused(root):
    cvat(root)
    path = root / "annotations.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]>' + path.read_text().partition("?>")[2])
    assert "declares a document type or an entity; remove" in refusal("cvat", root)
    path.write_text(path.read_text().partition("]>")[2])
    assert len(load("cvat", root=root).train) == 5


def test_two_fields_of_fiftyone_are_asked_about(root):
    TREES["fiftyone-samples"][0](root)
    field = {"_cls": "Classification", "label": "day"}
    edit(root / "samples.json", lambda d: [s.update(light=field) for s in d["samples"]])
    message = refusal("fiftyone", root)
    assert "has the fields tags_, light" in message
    assert load("fiftyone", root=root, **options_in(message, "field")).class_names == CLASSES
    assert load("fiftyone", root=root, field="light").class_names == ("day",)


@pytest.mark.parametrize(
    ("classes", "target"),
    [(True, 1), (True, [1]), (False, "dog"), (False, ["dog"]), (True, {"label": "dog"})],
)
def test_targets_of_fiftyone_in_every_form(root, classes, target):
    labels = {"a1": target, "a2": None, "a3": target, "a4": target}
    content = {"classes": list(CLASSES)} if classes else {}
    text(root / "labels.json", content | {"labels": labels})
    for name in labels:
        photo(root / f"data/{name}.png")
    data = load("auto", root=root)
    assert data.class_names == (CLASSES if classes else ("dog",))
    rows = {i: r for s in data.splits.values() for i, r in zip(s.ids, labels_of(s), strict=True)}
    assert rows == {"a1": {"dog"}, "a2": set(), "a3": {"dog"}, "a4": {"dog"}}


def test_machine_labels_count_where_asked(root):
    open_images(root)
    few = load("open-images", root=root)
    many = load("open-images", root=root, machine=0.6)
    ours, theirs = (d.train.labels.dense().numpy() for d in (few, many))
    dog = few.class_names.index("dog")
    assert not np.isnan(theirs[:, dog]).any()
    verified = ~np.isnan(ours[:, dog])
    assert np.array_equal(ours[verified, dog], theirs[verified, dog])
    assert (theirs[~verified, dog] == 1).all()
    assert load("open-images", root=root, machine=0.8).train.labels == few.train.labels


def test_people_who_differ_leave_an_entry_unknown(root):
    open_images(root)
    path = root / "train-annotations-human-imagelabels.csv"
    path.write_text(path.read_text() + "\n00a1ffff,crowdsource-verification,/m/01yrx,0\n")
    data = load("open-images", root=root)
    assert data.train.labels.dense()[0, data.class_names.index("cat")].isnan()


def test_lists_of_indices_and_lists_that_may_be_either(root):
    for i in range(4):
        photo(root / f"{i}.jpg")
    text(root / "train_list.txt", "0.jpg 0\n1.jpg 2\n2.jpg 1 2\n")
    text(root / "val_list.txt", "3.jpg 0\n")
    data = load("auto", root=root)
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert labels_of(data.train)[2] == {"class 1", "class 2"}
    text(root / "train_list.txt", "0.jpg 0 1\n1.jpg 1 0\n")
    text(root / "val_list.txt", "3.jpg 0 1\n")
    assert "0 1 may be two indices or a 0 and a 1; list one label alone" in refusal("lists", root)
    text(root / "val_list.txt", "3.jpg 0\n")
    assert labels_of(load("lists", root=root).train)[0] == {"class 0", "class 1"}


def test_names_of_lists_must_match(root):
    paddle(root)
    text(root / "label_list.txt", "0 cat\n1 dog\n")
    assert "has 2 classes, the lists 3; give one name each" in refusal("lists", root)
    text(root / "label_list.txt", "cat\ndog\nbus\n")
    assert load("lists", root=root).class_names == ("cat", "dog", "bus")
    data = load("lists", root=root, classes=["a", "b", "c"])
    assert data.class_names == ("a", "b", "c")


def test_yolo_without_names_asks_for_classes_txt(root):
    yolo(root)
    (root / "data.yaml").unlink()
    assert "write the class names into classes.txt, one on each line" in refusal("yolo", root)
    text(root / "classes.txt", "\n".join(CLASSES))
    assert load("auto", root=root).class_names == CLASSES
    text(root / "classes.txt", "cat\ndog")
    message = refusal("yolo", root)
    assert "class 2 is not among the 2 names; add it" in message
    text(root / "classes.txt", "cat\ndog\nbus")
    assert load("yolo", root=root).class_names[2] == "bus"


def test_yaml_cannot_run_anything(root):
    yolo(root)
    text(root / "data.yaml", "names: !!python/object/apply:os.system ['true']\n")
    assert "data.yaml is not YAML" in refusal("yolo", root)


def test_a_cell_that_is_no_flag_is_named(root):
    roboflow(root)
    path = root / "train/_classes.csv"
    good = path.read_text()
    path.write_text(good.replace(", 1, 1, 0", ", 1, 2, 0"))
    assert "_classes.csv, line 3: class 'dog' has '2'; give 0 or 1" in refusal("roboflow", root)
    path.write_text(good)
    assert len(load("roboflow", root=root).train) == 5


# --- class folders -------------------------------------------------------------------------------


def folders(root, names, split=""):
    for number, name in enumerate(names):
        for i in range(3):
            photo(root / split / name / f"{split}{number}{i}.jpg")


def test_joined_names_of_folders_are_labels(root):
    names = ["black_jeans", "blue_dress", "blue_jeans", "blue_shirt", "red_dress", "red_shirt"]
    folders(root, names)
    data = load("auto", root=root)
    assert data.class_names == ("black", "blue", "dress", "jeans", "red", "shirt")
    assert data.train.labels.cardinality == 2
    data = load("class-folders", root=root, separator="none")
    assert data.class_names == tuple(names)


def test_names_of_two_words_are_single_classes(root):
    folders(root, ["polar_bear", "traffic_light", "hot_dog", "cat"], "train")
    folders(root, ["polar_bear", "traffic_light", "hot_dog", "cat"], "val")
    data = load("auto", root=root)
    assert data.class_names == ("cat", "hot_dog", "polar_bear", "traffic_light")
    assert (len(data.train), len(data.test)) == (12, 12)


def test_names_that_may_be_either_are_asked_about(root):
    folders(root, ["black_footed_albatross", "black_tern", "arctic_tern", "red_tern"])
    message = refusal("class-folders", root)
    assert "may be one class" in message
    single = re.search("--separator (none)", message)[1]
    assert len(load("class-folders", root=root, separator=single).class_names) == 4
    joined = re.search("or --separator '(.)'", message)[1]
    assert "tern" in load("class-folders", root=root, separator=joined).class_names
