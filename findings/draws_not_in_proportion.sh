#!/usr/bin/env bash
# numpy 2.4.6: Generator.choice(n, size=k, replace=False, p=p).
# What it does: it draws one after the other, p renewed over the rest; an item's chance to be in the batch is NOT k * p.
# Large weights lose and small ones gain. With k near n all chances are near 1, whatever p.
# Why it surprises: p reads as the rate of each image; the first draw follows it, the batch does not.
# Consequence: a class-balanced batch without repeats is not balanced as computed, and importance weights 1 / (k * p)
# are biased; torch.multinomial(replacement=False) draws by the same rule.
# Remedy: draw with replacement, or by systematic sampling, whose chances are exactly k * p.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6'
venv/bin/python - <<'EOF'
import numpy as np

rng = np.random.default_rng(0)
p, k, rounds = np.array([0.45, 0.45, 0.04, 0.03, 0.03]), 2, 20_000
batches = np.array([np.bincount(rng.choice(5, size=k, replace=False, p=p), minlength=5) for _ in range(rounds)])
rate = batches.mean(axis=0)


def systematic():
    points = rng.random() + np.arange(k)
    return np.bincount(np.searchsorted(np.cumsum(k * p), points), minlength=5)


fair = np.mean([systematic() for _ in range(rounds)], axis=0)
print(f"expected: rates {k * p} (k * p, all below 1)")
print(f"seen: {rate.round(3)}; the rare ones come {rate[2:].sum() / (k * p)[2:].sum():.2f} times as often as asked; "
      f"systematic sampling {fair.round(3)}")
assert rate[0] < 0.88 and rate[2:].sum() > 1.25 * (k * p)[2:].sum()
assert np.abs(fair - k * p).max() < 0.02
EOF
