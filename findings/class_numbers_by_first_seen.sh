#!/usr/bin/env bash
# supervision 0.31.2: DetectionDataset.from_pascal_voc on two folders.
# What it does: the class numbers follow the order in which names are met in that folder's files, from 0; there is no
# argument for the class list. Train and validation folders of one data set get different numbers.
# Why it surprises: the YOLO reader of the same package takes its names from a file, the COCO reader sorts by category
# id; a VOC reader is expected to sort names or take a list.
# Consequence: a model trained on one folder is scored against swapped classes on the other; a class that is
# absent from a folder shifts the rest.
# Remedy: map through names (dataset.classes[i]), or read both folders at once and split after.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'supervision==0.31.2' 'pillow==13.0.0'
venv/bin/python - <<'EOF'
import os
import supervision
from PIL import Image


def folder(root, labels):
    os.makedirs(root)
    for i, name in enumerate(labels):
        Image.new("RGB", (20, 20)).save(f"{root}/{i}.jpg")
        open(f"{root}/{i}.xml", "w").write(
            f"<annotation><filename>{i}.jpg</filename><size><width>20</width><height>20</height><depth>3</depth>"
            f"</size><object><name>{name}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
            "</bndbox></object></annotation>")
    return supervision.DetectionDataset.from_pascal_voc(root, root)


train, val = folder("train", ["dog", "cat", "tail"]), folder("val", ["cat", "dog", "cat"])
dogs = [d.classes.index("dog") for d in (train, val)]
print("expected: ['cat', 'dog', 'tail'] or one order for both folders")
print(f"seen: train {train.classes}, val {val.classes}; dog is {dogs[0]} and {dogs[1]}")
assert set(train.classes) == {"dog", "cat", "tail"} and set(val.classes) == {"dog", "cat"}
assert train.classes != sorted(train.classes) and dogs[0] != dogs[1]
EOF
