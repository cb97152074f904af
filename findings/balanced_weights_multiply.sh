#!/usr/bin/env bash
# scikit-learn 1.9.1: compute_sample_weight("balanced", Y) of a multi-label matrix.
# What it does: it computes one balanced weight per column, for the zeros as for the ones, and
# multiplies the columns. The same rule stands behind class_weight="balanced" of its trees and forests.
# Why it surprises: every other balanced weight of the field is a sum or a mean over an image's
# labels, so a handful of images cannot own the sample.
# Consequence: with a long tail the weight grows like the product of the tail classes' inverse
# frequencies: of 2000 images, fewer than ten carry the whole fit.
# Remedy: weight per class and image (a mask in the loss), or draw images by a class-aware sampler;
# look at the effective sample size before fitting.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scikit-learn==1.9.1'
venv/bin/python - <<'EOF'
import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

rng = np.random.default_rng(0)
images, classes = 2000, 20
share = np.geomspace(0.5, 0.005, classes)  # a long tail: 1000 images down to 10
Y = (rng.random((images, classes)) < share).astype(int)
w = compute_sample_weight("balanced", Y)
effective = w.sum() ** 2 / (w**2).sum()
product = np.prod([compute_sample_weight("balanced", Y[:, c]) for c in range(classes)], axis=0)
mean = np.mean([compute_sample_weight("balanced", Y[:, c]) for c in range(classes)], axis=0)
print(f"expected: mean of the columns' weights, effective sample {mean.sum()**2/(mean**2).sum():.0f} of {images}")
print(f"seen: product of the columns' weights, effective sample {effective:.1f} of {images}; "
      f"one image holds {w.max() / w.sum():.0%} of all weight, the least {w.min():.1e}, the most {w.max():.1e}")
assert np.allclose(w, product)
assert effective < 10 and mean.sum() ** 2 / (mean**2).sum() > 500
EOF
