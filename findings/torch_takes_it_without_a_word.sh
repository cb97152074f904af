#!/usr/bin/env bash
# torch 2.13.0: three silent turns on the way of a multi-label batch.
# What it does: (a) MultiLabelMarginLoss takes lists of class NUMBERS padded with -1; a multi-hot row of 0 and 1 is accepted
# as "classes 0 and 1", while MultiLabelSoftMarginLoss, its neighbour, takes multi-hot; (b) the weighted mean of
# cross_entropy divides by the sum of weights, that of binary_cross_entropy_with_logits by the number
# of entries, so masking halves the loss; (c) iterating a DataLoader, without shuffling or workers, draws
# a number from the global generator: one more validation pass changes all later training.
# Why it surprises: names, shapes and neighbours suggest the opposite, and nothing is raised.
# Consequence: a loss on the wrong classes; partly labelled batches with a smaller step; runs that differ by evaluation.
# Remedy: (loss * mask).sum() / mask.sum(); DataLoader(generator=torch.Generator()) for evaluation.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6'
venv/bin/python - <<'EOF'
import torch
import torch.nn.functional as F

scores = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
loss = torch.nn.MultiLabelMarginLoss()
hot, numbers = float(loss(scores, torch.tensor([[0, 0, 1, 1]]))), float(loss(scores, torch.tensor([[2, 3, -1, -1]])))
print(f"expected: {numbers:.2f} for classes 2 and 3 given as multi-hot, or an error")
print(f"seen: {hot:.2f}")
assert hot > 4 * numbers

zeros, mask = torch.zeros(4, 2), torch.tensor([1.0, 0.0])
bce = float(F.binary_cross_entropy_with_logits(zeros, zeros, weight=mask))
ce = float(F.cross_entropy(zeros, torch.tensor([0, 1, 1, 1]), weight=mask))
print("expected: 0.693 (log 2) in both, half of the entries masked by weight 0")
print(f"seen: cross_entropy {ce:.3f}, binary_cross_entropy_with_logits {bce:.3f}")
assert abs(ce - 0.6931) < 1e-3 and abs(bce - 0.3466) < 1e-3


def draw(**options):
    torch.manual_seed(0)
    list(torch.utils.data.DataLoader(range(4), batch_size=2, **options))
    return float(torch.rand(1))


torch.manual_seed(0)
without = float(torch.rand(1))
print(f"expected: the next random number is {without:.4f}, with or without a pass in fixed order before it")
print(f"seen: {draw():.4f} after a pass, {draw(generator=torch.Generator()):.4f} with a generator of its own")
assert draw() != without and draw(generator=torch.Generator()) == without
EOF
