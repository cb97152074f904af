#!/usr/bin/env bash
# torchmetrics 1.9.0 (torch 2.13.0): logits in multi-label metrics, and a class without positives.
# What it does: (a) each batch decides for itself whether it holds logits: if all its values happen to lie in [0, 1] they
# are taken as probabilities, else the sigmoid is applied; (b) MultilabelAveragePrecision counts a class
# that has no positive as 0 in the macro mean, MulticlassAveragePrecision leaves it out.
# Why it surprises: the same logit of 0.3 is "present" in one batch and "absent" in the next; sister classes of one module
# treat the same gap in two ways.
# Consequence: last and small batches, and models at the start of training, are scored by another rule; the mAP of a
# subset in which tail classes are absent is far too low.
# Remedy: pass torch.sigmoid(logits) always; average=None and drop the absent classes yourself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 'torchmetrics==1.9.0'
venv/bin/python - <<'EOF'
import warnings
import torch
from torchmetrics.classification import MulticlassAveragePrecision, MultilabelAveragePrecision, MultilabelF1Score

warnings.simplefilter("ignore")
logits, ones = torch.tensor([[0.3, 0.2], [0.1, 0.4]]), torch.ones(2, 2, dtype=int)
alone = float(MultilabelF1Score(2, average="micro")(logits, ones))
wide = torch.cat([logits, torch.tensor([[3.0, 0.2]])])
with_one_more = float(MultilabelF1Score(2, average="micro")(wide, torch.ones(3, 2, dtype=int)))
print("expected: F1 1.0 in both batches (all logits above 0, all labels present)")
print(f"seen: {alone} for logits within [0, 1], {with_one_more} once a logit 3.0 is in the batch")
assert (alone, with_one_more) == (0, 1)

scores, Y = torch.tensor([[0.9, 0.1], [0.2, 0.3], [0.8, 0.2]]), torch.tensor([[1, 0], [0, 0], [1, 0]])
label = float(MultilabelAveragePrecision(2)(scores, Y))
three = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]])
single = float(MulticlassAveragePrecision(3)(three, torch.tensor([0, 1])))
print("expected: 1.0 in both, the absent class left out")
print(f"seen: multi-label {label}, multi-class {single}")
assert (label, single) == (0.5, 1)
EOF
