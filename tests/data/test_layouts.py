"""The layouts of the field's tools: labels, unknown entries, splits and recognition."""

import logging
import re

import numpy as np
import pytest
from layout_trees import CLASSES, TREES, WANT, WHOLE, lvis_absent

from ltml.cli import main
from ltml.data import load


@pytest.fixture(scope="session")
def trees(tmp_path_factory):
    """Folder of each tree, built once."""
    roots = {}
    for name, (build, _) in TREES.items():
        roots[name] = tmp_path_factory.mktemp("layouts") / name
        roots[name].mkdir()
        build(roots[name])
    return roots


def labels_of(split) -> dict[str, set[str]]:
    """Photo -> labels, by the file that was found."""
    names, found = split.labels.class_names, {}
    for i, path in enumerate(split.images):
        assert path.is_file()
        photo = re.search("[abc][1-5]", path.name)[0]
        found[photo] = {names[c].replace("trafficlight", "traffic light") for c in split.labels[i]}
    return found


@pytest.mark.parametrize("name", TREES)
def test_labels_and_images_are_those_that_were_written(trees, name):
    data = load(TREES[name][1], root=trees[name])
    assert {c.replace("trafficlight", "traffic light") for c in data.class_names} == set(CLASSES)
    found = {split: labels_of(part) for split, part in data.splits.items()}
    if name.startswith("label-studio"):  # one file, of which a part is held out
        assert found["train"] | found["test"] == WHOLE
        assert not found["train"].keys() & found["test"].keys()
        assert len(found["test"]) == 2
    elif "val" in found:
        assert found == WANT
    else:
        wanted = WANT["test"] if name in ("voc-sets", "nus-wide") else WANT["val"]
        assert found["train"] == WANT["train"]
        assert found["test"] in (wanted, WANT["val"])


@pytest.mark.parametrize("name", TREES)
def test_a_layout_is_recognised_and_said(trees, name, caplog):
    caplog.set_level(logging.INFO, logger="ltml")
    data = load("auto", root=trees[name])
    same = load(TREES[name][1], root=trees[name])
    assert data.name == same.name
    assert data.train.labels == same.train.labels
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == said[1]
    assert re.fullmatch(r"read as .+: .+; 3 classes; train \d images, (val|test) .*", said[0]), said
    assert "\n" not in said[0]


@pytest.mark.parametrize("name", ["lvis", "open-images"])
def test_what_was_not_verified_is_unknown(trees, name):
    data = load("auto", root=trees[name])
    for split in data.splits.values():
        dense = split.labels.dense().numpy()
        for row, (photo, labels) in zip(dense, labels_of(split).items(), strict=True):
            for c, value in enumerate(row):
                if CLASSES[c] in labels:
                    assert value == 1
                elif c in lvis_absent(photo):
                    assert value == 0
                else:
                    assert np.isnan(value)


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_every_layout_is_audited_probed_and_trained_on(trees, name, tmp_path, capsys, caplog):
    """By its folder alone; what was read is printed each time."""
    root, small = str(trees[name]), ["--quiet", "--device", "cpu", "--backbone", "small"]
    commands = [
        ["audit", root],
        ["probe", root, "--weights", "None", "--out", str(tmp_path / "probe"), *small],
        ["train", "--root", root, "--epochs", "1", "--out", str(tmp_path / "run"), *small],
    ]
    for command in commands:
        assert main(command) == 0
        assert re.search("read as .*; 3 classes; train", caplog.text)
        assert "traffic" in capsys.readouterr().out
        caplog.clear()
