#!/usr/bin/env bash
# imbalanced-learn 0.14.2: RandomOverSampler on a 0/1 label matrix with rows of zeros.
# What it does: a row with two ones raises an error ("multilabel is not supported"), but where no row
# has two, the matrix is read as one-hot by argmax: images WITHOUT any label become class 0, in
# the returned labels and in the counts that are balanced.
# Why it surprises: nobody expects a sampler to change labels of the rows it keeps.
# Consequence: a tail subset in which no two classes meet passes silently; its background images
# come back as the first class, and that class is never oversampled.
# Remedy: resample row numbers with your own weights, never the label matrix; or take out rows of
# zeros first and put them back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scikit-learn==1.9.1' 'imbalanced-learn==0.14.2'
venv/bin/python - <<'EOF'
import numpy as np
from imblearn.over_sampling import RandomOverSampler

Y = np.array([[0, 0, 0]] * 4 + [[1, 0, 0]] * 1 + [[0, 1, 0]] * 3 + [[0, 0, 1]] * 2)
X = np.arange(len(Y))[:, None]
rows, labels = RandomOverSampler(random_state=0).fit_resample(X, Y)
kept = labels[: len(Y)]
changed = int((kept != Y).any(axis=1).sum())
print("expected: the ten rows that went in keep their labels (or an error)")
print(f"seen: {changed} rows without a label now have class 0; row 0 went in as {Y[0].tolist()}, "
      f"came out as {kept[0].tolist()}; class 0 counts as {int((kept[:, 0]).sum())} images, not 1")
assert (rows[: len(Y)] == X).all() and changed == 4 and kept[:4, 0].all()
try:
    RandomOverSampler().fit_resample(X, Y | [[0, 0, 1]])
    raise SystemExit("a row with two labels no longer raises")
except ValueError as error:
    assert "Multilabel" in str(error)
EOF
