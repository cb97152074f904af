#!/usr/bin/env bash
# Pillow 13.0.0 and OpenCV 5.0.0.93: JPEG quality 100 and lossless WebP.
# What they do: at quality 100 both still store the colours at half the resolution, so thin red and blue stripes are off by
# more than 100 of 255 levels; Pillow's WebP with lossless=True changes the colour of all transparent pixels.
# Why it surprises: "quality 100" is taken for "as good as JPEG gets", and "lossless" for equal arrays; with full colour
# resolution the largest difference is 1.
# Consequence: re-saved benchmark images differ from the originals just where colour edges are; a WebP copy of
# transparent PNGs gives other RGB images after convert("RGB"), as loaders do.
# Remedy: subsampling=0 (Pillow), IMWRITE_JPEG_SAMPLING_FACTOR (OpenCV); exact=True for WebP; or keep PNG.
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

stripes = np.zeros((32, 32, 3), np.uint8)
stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
off = lambda path, right: int(np.abs(np.asarray(Image.open(path).convert("RGB")).astype(int) - right).max())
Image.fromarray(stripes).save("p.jpg", quality=100)
Image.fromarray(stripes).save("full.jpg", quality=100, subsampling=0)
cv2.imwrite("o.jpg", stripes[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
print("expected: a few levels at quality 100")
print(f"seen: Pillow {off('p.jpg', stripes)}, OpenCV {off('o.jpg', stripes)}, with subsampling=0 {off('full.jpg', stripes)}")
assert off("p.jpg", stripes) > 100 and off("o.jpg", stripes) > 100 and off("full.jpg", stripes) <= 2

noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
image = Image.fromarray(np.dstack([noise, np.zeros((32, 32), np.uint8)]))
image.save("w.webp", lossless=True)
image.save("e.webp", lossless=True, exact=True)
print("expected: 0 for a lossless file")
print(f"seen: {off('w.webp', noise)}, with exact=True {off('e.webp', noise)}")
assert off("w.webp", noise) > 100 and off("e.webp", noise) == 0
EOF
