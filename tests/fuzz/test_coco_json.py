"""COCO instances files: whatever they hold, the labels of their images or one error."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome, text_of

from ltml.core.errors import InputError
from ltml.data.coco import load, rows

VALID = {
    "info": {"year": 2017},
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 9, "height": 9},
        {"id": 2, "file_name": "b.jpg", "width": 9, "height": 9},
        {"id": 3, "file_name": "c.jpg"},
    ],
    "categories": [{"id": 5, "name": "dog"}, {"id": 1, "name": "traffic light"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 5, "bbox": [0, 0, 5, 5.5], "segmentation": [[1]]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 0, 5, 5], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 2, 0]},
        {"id": 4, "image_id": 3, "category_id": 1, "bbox": [0.5, 1e1, 2, 2]},
    ],
}
BYTES = json.dumps(VALID, indent=1).encode()
TOKENS = [b'"id": 7,', b'"category_id": 1,', b'"images": [],', b'"annotations": []', b'"./a.jpg"']
TOKENS += [b'"a.jpg"', b'"id"', b'"image_id"', b'"name"', b"7", b"5", b"{", b"}", b"]", b"1e-9"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A COCO folder with images; each test writes the training file."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    (root / "annotations/instances_val2017.json").write_bytes(BYTES)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (root / split / name).touch()
    return root


def train_file(root):
    return root / "annotations/instances_train2017.json"


def no_key_twice(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), "of two values under one key, one was lost"
    return dict(pairs)


def labels_by_hand(content: bytes) -> dict[str, set[str]]:
    """File name -> names of the categories with a box of some area, straight from the JSON."""
    dataset = json.loads(text_of(content), object_pairs_hook=no_key_twice)
    labels = {image["file_name"]: set() for image in dataset["images"]}
    assert len(labels) == len(dataset["images"])
    for box in dataset["annotations"]:
        ((name,), (file,)) = (
            [entry[field] for entry in dataset[key] if same(entry["id"], box[reference])]
            for key, field, reference in (
                ("categories", "name", "category_id"),
                ("images", "file_name", "image_id"),
            )
        )
        if box.get("bbox") in (None, []):  # of the whole image
            labels[file].add(name)
            continue
        x, y, width, height = box["bbox"]
        assert all(type(value) in (int, float) for value in box["bbox"])
        assert abs(x) + abs(y) < float("inf")
        if width > 0 < height:
            labels[file].add(name)
    return labels


def same(a, b) -> bool:
    """As JSON has it: neither true nor 1.0 nor "1" is 1."""
    return type(a) is type(b) is int and a == b


def read_labels(split) -> dict[str, set[str]]:
    names = split.labels.class_names
    return {
        name.removeprefix("train2017/"): {names[c] for c in split.labels[i]}
        for i, name in enumerate(split.ids)
    }


def load_or_error(root, content):
    """The training split, or None for one error that names the file."""
    train_file(root).write_bytes(content)
    return outcome(lambda _: rows(root, "train2017").split(), train_file(root))


@st.composite
def datasets(draw):
    """Instances files of any size, with ids in any order and names of any script."""
    ids = st.integers(-(2**70), 2**70)
    categories = draw(st.lists(st.tuples(ids, names()), min_size=1, max_size=5,
                               unique_by=(lambda c: c[0], lambda c: c[1])))  # fmt: skip
    images = draw(st.lists(st.tuples(ids, st.sampled_from("abc")), min_size=1,
                           unique_by=(lambda c: c[0], lambda c: c[1])))  # fmt: skip
    box = st.lists(st.one_of(st.integers(-1, 3), st.floats(0, 9)), min_size=4, max_size=4)
    boxes = draw(
        st.lists(st.tuples(st.sampled_from(images), st.sampled_from(categories), box), max_size=8)
    )
    return {
        "annotations": [
            {"image_id": image, "bbox": where, "category_id": category, "score": None}
            for (image, _), (category, _), where in boxes
        ],
        "categories": [{"name": name, "id": number} for number, name in categories],
        "images": [{"file_name": f"{name}.jpg", "id": number} for number, name in images],
    }


@given(datasets(), st.booleans(), st.sampled_from([None, 1, "\t"]), st.booleans())
@fuzz(80)
def test_what_was_written_is_read(root, dataset, ascii_only, indent, bom):
    """Labels are those of the boxes, columns the categories by id, images those of the file."""
    text = json.dumps(dataset, ensure_ascii=ascii_only, indent=indent)
    content = text.encode("utf-8-sig" if bom else "utf-8")
    train_file(root).write_bytes(content)
    val = root / "annotations/instances_val2017.json"
    everything = [
        {"image_id": dataset["images"][0]["id"], "category_id": c["id"], "bbox": [0, 0, 1, 1]}
        for c in dataset["categories"]
    ]
    val.write_text(json.dumps(dataset | {"annotations": everything}))
    labels = labels_by_hand(content)
    try:
        if not any(labels.values()):
            with pytest.raises(InputError, match="no label"):
                load(root=root)
            return
        data = load(root=root)
    finally:
        val.write_bytes(BYTES)
    assert read_labels(data.train) == labels
    by_id = sorted(dataset["categories"], key=lambda category: category["id"])
    assert data.class_names == tuple(category["name"] for category in by_id)
    assert list(read_labels(data.train)) == [image["file_name"] for image in dataset["images"]]


@given(mutated(BYTES, TOKENS))
@fuzz(250)
@example(BYTES.replace(b'"category_id": 5', b'"category_id": 5, "category_id": 1'))
@example(BYTES.replace(b'"annotations"', b'"annotations": [], "annotations"'))
@example(BYTES.replace(b'"b.jpg"', b'"./a.jpg"'))
def test_a_broken_file_is_read_rightly_or_refused(root, content):
    """Labels are those that the JSON holds; of contradictions and slips none is read silently."""
    split = load_or_error(root, content)
    if split is not None:
        assert read_labels(split) == labels_by_hand(content)
        assert len(set(split.images)) == len(split)
        assert all(path.is_file() for path in split.images)


NUMBERS = [True, False, "1", "7", 1.0, 7.0, -7, 1, 5, 7, 10**30, 1e308, float("nan"), float("inf")]
PATHS = ["", "\ud800", "\0", "a.jpg", "./b.jpg", "a.jpg/", "../secret.jpg", "/etc/passwd"]
BOXES = [[0, 0, 1, True], [0, 0, "1", 1], [0, 0, [1], 1], [0, 0, 1, 1, 1], [0, 0, 10**400, 1]]
ODD = [None, [], {}, [7], {"id": 7}, *NUMBERS, *PATHS, *BOXES]


def entries_of(dataset):
    return [entry for key in ("images", "categories", "annotations") for entry in dataset[key]]


def check_read(root, dataset):
    content = json.dumps(dataset).encode()
    split = load_or_error(root, content)
    if split is not None:
        assert read_labels(split) == labels_by_hand(content), content


def test_a_wrong_value_in_any_field_is_read_rightly_or_refused(root):
    """Each field in turn is absent, of another type, huge, another's: 1,000 files."""
    for i, entry in enumerate(entries_of(VALID)):
        for field in entry:
            for value in [..., *ODD]:
                dataset = json.loads(BYTES)
                entries_of(dataset)[i][field] = value
                if value is ...:
                    del entries_of(dataset)[i][field]
                check_read(root, dataset)
