#!/usr/bin/env bash
# polars 2.1.0: class codes from Categorical, and the indicator matrix of to_dummies.
# What it does: (a) the codes of a Categorical come from one store for the whole process: the same column gets 0, 1
# in a fresh process and 2, 3 while a column with other names is in use; (b) to_dummies gives 8-bit unsigned
# columns, so Y.T @ Y of the numpy matrix counts modulo 256, while Y.sum(axis=0) is right.
# Why it surprises: pandas and scikit-learn number from 0 inside the column, and the sum beside it agrees with the
# table, so a wrong co-occurrence matrix looks plausible.
# Consequence: label numbers that differ between training and serving; co-occurrence off for every frequent class.
# Remedy: pl.Enum(names) for codes; Y.astype(int) before any product.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'polars==2.1.0'
venv/bin/python - <<'EOF'
import numpy as np
import polars as pl

codes = lambda: pl.Series(["cat", "dog"], dtype=pl.Categorical).to_physical().to_list()
other = pl.Series(["indoor", "outdoor"], dtype=pl.Categorical)  # another column, in use
print("expected: [0, 1] for cat, dog")
print(f"seen: {codes()}; as Enum {pl.Series(['cat', 'dog'], dtype=pl.Enum(['cat', 'dog'])).to_physical().to_list()}")
assert codes() == [2, 3]
Y = pl.Series("label", ["cat"] * 700 + ["dog"] * 3).to_dummies().to_numpy()
together = Y.T @ Y
print("expected: 700 images of cat on the diagonal")
print(f"seen: {int(together[0, 0])} in Y.T @ Y ({Y.dtype}), {int(Y.sum(axis=0)[0])} in the sum")
assert together[0, 0] == 700 % 256 and Y.sum(axis=0)[0] == 700
EOF
