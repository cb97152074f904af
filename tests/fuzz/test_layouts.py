"""The label files of the field's tools: whatever they hold, labels or one error of one line."""

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzz, mutated

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from layout_trees import CLASSES, TREES

from ltml.core.errors import InputError
from ltml.data import load

TOKENS = [b"null", b"[]", b"{}", b"true", b'""', b"-1", b"9" * 20, b"1e999", b"NaN", b'"a"', b",,"]
TOKENS += [
    b"\x00",
    b"\xff",
    b"\n\n",
    b'"',
    b"'",
    b"<tag/>",
    b'label=""',
    b"</image>",
    b"0,1",
    b"\t",
]
FILES = {  # of each tree, one that is changed
    "roboflow": "train/_classes.csv",
    "roboflow-coco": "train/_annotations.coco.json",
    "lvis": "lvis_v1_train.json",
    "label-studio-json": "project-1-at-2024-05-06-07-08-0a1b2c3d.json",
    "label-studio-min": "project-1-at-2024-05-06.json",
    "label-studio-csv": "project-1.csv",
    "cvat": "annotations.xml",
    "datumaro": "annotations/train.json",
    "fiftyone": "train/labels.json",
    "fiftyone-samples": "samples.json",
    "open-images": "train-annotations-human-imagelabels.csv",
    "voc-sets": "ImageSets/Main/cat_train.txt",
    "paddle": "multilabel_train_list.txt",
    "nus-wide": "Groundtruth/TrainTestLabels/Labels_cat_Train.txt",
    "yolo": "labels/train/a1.txt",
    "yolo-roboflow": "data.yaml",
    "yolo-cvat": "obj.names",
}


ODD = (None, True, 5, 1.5, "x", [], {}, [None], [[]], {"a": 1})


@st.composite
def replaced(draw, content: bytes) -> bytes:
    """JSON in which one value, wherever it stands, is another or gone."""
    places, whole = [], json.loads(content)
    stack = [whole]
    while stack:
        entry = stack.pop()
        keys = list(entry) if isinstance(entry, dict) else range(len(entry))
        places += [(entry, key) for key in keys]
        stack += [entry[key] for key in keys if isinstance(entry[key], dict | list)]
    entry, key = draw(st.sampled_from(places))
    if draw(st.booleans()) and isinstance(entry, dict):
        del entry[key]
    else:
        entry[key] = draw(st.sampled_from(ODD))
    return json.dumps(whole).encode()


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Folder of each tree, and what the file holds that is changed."""
    built = {}
    for name, file in FILES.items():
        root = tmp_path_factory.mktemp("fuzz") / name
        root.mkdir()
        TREES[name][0](root)
        built[name] = root, root / file, (root / file).read_bytes()
    return built


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@fuzz(60)
def test_a_broken_file_is_read_or_refused(trees, name, data):
    root, path, content = trees[name]
    change = mutated(content, TOKENS)
    if path.suffix == ".json":
        change = st.one_of(change, replaced(content))
    path.write_bytes(data.draw(change))
    found, message = None, ""
    try:
        found = load(TREES[name][1], root=root)
    except InputError as error:
        message = str(error)
    finally:
        path.write_bytes(content)
    assert "\n" not in message
    assert len(message) < 2000
    if found is None:
        return
    assert len(found.class_names) <= 3 * len(CLASSES)
    assert all(image.is_file() for split in found.splits.values() for image in split.images)
