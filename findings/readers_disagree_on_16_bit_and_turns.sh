#!/usr/bin/env bash
# Pillow 13.0.0 and OpenCV 5.0.0.93: the same file by two readers.
# What they do: (a) a 16-bit grey PNG: Pillow's convert("RGB") and convert("L") CLIP at 255, so nearly the whole image is
# white; a 16-bit colour PNG is scaled by the same library, and OpenCV's imread scales both; (b) an orientation tag in
# JPEG, PNG and WebP: imread turns the image, its IMREAD_UNCHANGED flag and Pillow do not.
# Why it surprises: convert("RGB") is what nearly all image folders do, and it is right for every other PNG; two flags
# of one function give images of different shape.
# Consequence: X-ray, depth and microscope images train as white squares without an error; boxes and crops of one reader do
# not fit the other's pixels.
# Remedy: divide mode "I;16" by 257 yourself; ImageOps.exif_transpose, or IMREAD_IGNORE_ORIENTATION, everywhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'pillow==13.0.0' 'opencv-python-headless==5.0.0.93'
venv/bin/python - <<'EOF'
import cv2
import numpy as np
from PIL import Image

grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
cv2.imwrite("grey.png", grey)
cv2.imwrite("colour.png", np.repeat(grey[:, :, None], 3, axis=2))
open_rgb = lambda path: np.asarray(Image.open(path).convert("RGB"))
white = float((open_rgb("grey.png") == 255).mean())
print("expected: mean 127.5 by both readers, grey or colour")
print(f"seen: Pillow grey {open_rgb('grey.png').mean():.1f} ({white:.1%} white), Pillow colour "
      f"{open_rgb('colour.png').mean():.1f}, OpenCV grey {cv2.imread('grey.png').mean():.1f}")
assert white > 0.99 and open_rgb("colour.png").mean() == 127.5 and cv2.imread("grey.png").mean() == 127.5

tag = Image.Exif()
tag[0x0112] = 6
seen = {}
for kind in ("jpg", "png", "webp"):
    Image.new("RGB", (40, 30)).save(f"turned.{kind}", exif=tag)
    seen[kind] = [Image.open(f"turned.{kind}").size, cv2.imread(f"turned.{kind}").shape[1::-1],
                  cv2.imread(f"turned.{kind}", cv2.IMREAD_UNCHANGED).shape[1::-1]]
print("expected: one width and height a file")
print(f"seen: Pillow, imread, imread unchanged {seen}")
assert all(v == [(40, 30), (30, 40), (40, 30)] for v in seen.values())
EOF
