#!/usr/bin/env bash
# albumentations 2.0.8: Normalize on a float image, and integer labels of boxes.
# What it does: (a) Normalize() divides mean and deviation by max_pixel_value=255 whatever the type: a float32 image in
# [0, 1], which the other transforms of the library take as such, comes out nearly constant; (b) label_fields of
# class numbers come back as floats.
# Why it surprises: the library's own ToFloat makes such images and its colour transforms accept them; no error,
# no warning, and the network still trains, on images of a tenth of the contrast.
# Consequence: Compose([ToFloat(), Normalize()]) loses accuracy for no visible reason; labels 3.0 do not index.
# Remedy: Normalize(max_pixel_value=1.0) for floats; cast the labels after the transform.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'albumentations==2.0.8' 'opencv-python-headless==5.0.0.93'
venv/bin/python - <<'EOF'
import albumentations as A
import numpy as np

image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
direct = A.Normalize()(image=image)["image"].std()
float_first = A.Compose([A.ToFloat(), A.Normalize()])(image=image)["image"].std()
print(f"expected: contrast (deviation) {direct:.3f} both ways")
print(f"seen: from uint8 {direct:.3f}, from ToFloat {float_first:.3f}")
assert direct > 1 and float_first < direct / 5
boxes = A.Compose([A.HorizontalFlip(p=1)], bbox_params=A.BboxParams("pascal_voc", label_fields=["labels"]))
labels = boxes(image=image, bboxes=[[0, 0, 9, 9], [5, 5, 30, 30]], labels=[3, 7])["labels"]
print("expected: labels [3, 7] as int")
print(f"seen: {labels}")
assert labels == [3, 7] and all(isinstance(x, (float, np.floating)) for x in labels)
EOF
