#!/usr/bin/env bash
# scikit-learn 1.9.1, scipy 1.17.1: a label that was set to 0 in a sparse label matrix still counts.
# What it does: `Y[image, label] = 0` leaves a stored zero, and so does cutting `Y.data` at a threshold.
# Precision, recall and F1 then count it as a label, and MultiLabelBinarizer lists it by name; accuracy
# and the Hamming loss of the same two matrices see that it is absent.
# Why it surprises: `Y.toarray()` and `Y.sum()` are right, and metrics of one package disagree on one matrix.
# Consequence: cleaned label lists have their wrong labels back when they are written; predictions that
# agree with the cleaned labels are scored as misses.
# Remedy: Y.eliminate_zeros() after every change, or dense matrices.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scipy==1.17.1' 'scikit-learn==1.9.1'
venv/bin/python - <<'EOF'
import numpy as np
from scipy.sparse import csr_array
from sklearn.metrics import accuracy_score, f1_score, hamming_loss
from sklearn.preprocessing import MultiLabelBinarizer

predicted = csr_array(np.array([[1, 0, 0], [0, 1, 1], [1, 0, 0], [0, 1, 0]]))
truth = csr_array(np.array([[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 0]]))
truth[0, 2] = 0  # two wrong labels taken out
truth[2, 2] = 0
assert (truth.toarray() == predicted.toarray()).all() and truth.sum() == 5

micro, macro = (f1_score(truth, predicted, average=a) for a in ("micro", "macro"))
print("expected: F1 of 1, micro and macro, and accuracy of 1, as both matrices are equal")
print(f"seen: micro {micro:.3f}, macro {macro:.3f}, accuracy {accuracy_score(truth, predicted)}")
assert abs(micro - 5 / 6) < 1e-9 and abs(macro - (1 + 1 + 0.5) / 3) < 1e-9
assert accuracy_score(truth, predicted) == 1 and hamming_loss(truth, predicted) == 0

names = MultiLabelBinarizer().fit([["bird", "cat", "kite"]])
print("expected: the first image holds a bird")
print(f"seen: {names.inverse_transform(truth)[0]}; {names.inverse_transform(truth.toarray())[0]} from the dense matrix")
assert names.inverse_transform(truth)[0] == ("bird", "kite")
assert names.inverse_transform(truth.toarray())[0] == ("bird",)

truth.eliminate_zeros()
assert f1_score(truth, predicted, average="micro") == 1

scores = csr_array(np.array([[0.9, 0.2], [0.8, 0.7]]))
scores.data = (scores.data >= 0.5).astype(int)
listed = MultiLabelBinarizer().fit([["bird", "cat"]]).inverse_transform(scores)
print("expected: only bird in the first image after a threshold of 0.5 on scores of 0.9 and 0.2")
print(f"seen: {listed[0]}")
assert listed[0] == ("bird", "cat")
EOF
