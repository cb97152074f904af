#!/usr/bin/env bash
# scikit-learn 1.9.1: log_loss(Y, P) of a 0/1 matrix with several ones in a row.
# What it does: it takes each row as ONE distribution over the classes and sums -log p over the ones
# only; the absent labels never enter. It warns that rows do not sum to one, and returns a number.
# Why it surprises: the other losses and scores of the package know a multi-label matrix and treat
# its columns as separate yes/no questions; nearly all guess the mean binary cross-entropy.
# Consequence: a model that says "present" with probability 1 to everything scores a perfect 0.
# Remedy: average log_loss over the columns (labels=[0, 1]), or use a binary cross-entropy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scikit-learn==1.9.1'
venv/bin/python - <<'EOF'
import warnings
import numpy as np
from sklearn.metrics import log_loss

warnings.simplefilter("ignore")
Y = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]])
P = np.full(Y.shape, 0.999)  # "every class is in every image"
binary = np.mean([log_loss(Y[:, c], P[:, c], labels=[0, 1]) for c in range(3)])
seen = log_loss(Y, P)
print(f"expected: mean binary cross-entropy {binary:.3f}")
print(f"seen: {seen:.3f}; the four absent labels cost nothing")
assert binary > 3 and seen < 0.01
assert abs(log_loss(Y, np.ones(Y.shape))) < 1e-9
EOF
