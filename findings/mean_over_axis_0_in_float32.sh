#!/usr/bin/env bash
# numpy 2.4.6: mean, sum and std of a float32 array over the FIRST axis.
# What it does: the accurate pairwise summation works along contiguous memory only. x.mean(axis=0) of pixels (N, 3)
# adds row after row into one float32 each, which stops growing at 2**24 = 16 777 216; float16
# sums stop at 2048.
# Why it surprises: x.mean() of the same array is right to seven digits, and so is the mean of its transpose made
# contiguous; only the per-channel mean is wrong, by 40 % here and without a warning.
# Consequence: channel means and deviations for normalisation, class counts summed from a float matrix, class
# centres of large feature tables.
# Remedy: dtype=np.float64 in the call (no copy is made), or sum per image and add those in float64.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6'
venv/bin/python - <<'EOF'
import numpy as np

pixels = np.full((30_000_000, 3), 0.9, np.float32)  # about 600 images of 224 x 224
whole, channels = float(pixels.mean()), pixels.mean(axis=0)
right = pixels[:, 0].mean(dtype=np.float64)
print(f"expected: {right:.4f} for each channel, deviation 0")
print(f"seen: mean() {whole:.4f}, mean(axis=0) {channels}, std(axis=0) {pixels.std(axis=0)}")
assert abs(whole - 0.9) < 1e-4 and (np.abs(channels - 0.9) > 0.3).all()
half = np.ones((10_000, 3), np.float16)
print("expected: 10000 labels counted in float16 by sum(axis=0) (half reaches 65504)")
print(f"seen: {half.sum(axis=0)}, while mean(axis=0) is {half.mean(axis=0)}")
assert (half.sum(axis=0) == 2048).all() and (half.mean(axis=0) == 1).all()
EOF
