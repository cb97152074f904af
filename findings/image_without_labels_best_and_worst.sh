#!/usr/bin/env bash
# scikit-learn 1.9.1: per-image metrics on an image with no positive label.
# What it does: label_ranking_average_precision_score gives such an image the best score (1),
# label_ranking_loss and coverage_error give it the best one too (0), while ndcg_score and the
# sample-averaged f1 and jaccard give it the worst (0), though nothing was predicted wrongly.
# Why it surprises: one package, one input, two opposite conventions, and no metric leaves it out.
# Consequence: adding background images raises one curve and lowers the other with the same model;
# numbers of two papers that kept or dropped such images cannot be compared.
# Remedy: drop rows without positives before per-image metrics and say so; zero_division=1 for f1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scikit-learn==1.9.1'
venv/bin/python - <<'EOF'
import warnings
import numpy as np
from sklearn import metrics as M

warnings.simplefilter("ignore")
scores = np.random.default_rng(0).random((1, 5))
none = np.zeros((1, 5), int)
lrap = M.label_ranking_average_precision_score(none, scores)
loss = M.label_ranking_loss(none, scores)
coverage = M.coverage_error(none, scores)
ndcg = M.ndcg_score(none, scores)
f1 = M.f1_score(none, none, average="samples")
jaccard = M.jaccard_score(none, none, average="samples")
print("expected: undefined everywhere (nan, or left out of the mean)")
print(f"seen: best in LRAP {lrap}, ranking loss {loss}, coverage {coverage}; "
      f"worst in NDCG {ndcg}, F1 {f1}, Jaccard {jaccard}")
assert (lrap, loss, coverage) == (1, 0, 0)
assert (ndcg, f1, jaccard) == (0, 0, 0)
EOF
