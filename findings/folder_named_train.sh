#!/usr/bin/env bash
# datasets 5.2.0 (Hugging Face): load_dataset("imagefolder") where a class is called "train".
# What it does: a folder name that reads as a split (train, test, val, also "test tube") wins over being a
# class. One folder an image class: only the folder "train" is read, without labels, and the rest is
# dropped. Under train/ and val/: the images of val/train are ALSO put into the train split.
# Why it surprises: "train" is a class of Pascal VOC and of COCO; no warning is given, and the copies
# of validation images among the training images raise the score instead of an error.
# Consequence: lost classes, or a leak of the validation images of one class.
# Remedy: pass data_files={"train": "voc/train/**", ...} with explicit patterns, rename the class
# folder, or give a metadata.csv; compare the number of rows with the number of files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'datasets==5.2.0' 'pillow==13.0.0'
venv/bin/python - <<'EOF'
import os

os.environ["HF_HUB_OFFLINE"], os.environ["HF_HOME"] = "1", os.path.abspath("cache")
import datasets
from PIL import Image

datasets.disable_progress_bars()


def write(root, classes, n=3):
    for c in classes:
        os.makedirs(f"{root}/{c}")
        for i in range(n):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(f"{root}/{c}/{c}{i}.png")


def load(root):
    return datasets.load_dataset("imagefolder", data_dir=root)


write("plain", ["bus", "cat", "dog"])
write("voc", ["bus", "cat", "train"])
write("split/train", ["bus", "cat", "train"])
write("split/val", ["bus", "cat", "train"])
plain, voc, split = load("plain"), load("voc"), load("split")
print("expected: 9 images in 3 classes, also where the third class is called train")
print(f"seen: dog: {plain['train'].num_rows} images, columns {plain['train'].column_names}; "
      f"train: {voc['train'].num_rows} images, columns {voc['train'].column_names}")
assert plain["train"].num_rows == 9 and "label" in plain["train"].column_names
assert voc["train"].num_rows == 3 and voc["train"].column_names == ["image"]
pixels = [im.tobytes() for im in split["validation"]["image"]]
rows = {k: v.num_rows for k, v in split.items()}
print("expected: {'train': 9, 'validation': 9}, disjoint")
print(f"seen: {rows}; the 3 images of val/train are in both")
assert rows == {"train": 12, "validation": 9}
EOF
