#!/usr/bin/env bash
# pandas 3.1.1: a missing label on its way to a 0/1 matrix.
# What it does: the same missing entry becomes PRESENT by .astype(bool) (nan and -1 are true), ABSENT by
# get_dummies and str.get_dummies (a row of zeros), and groupby on a categorical leaves classes out that
# have no image, while value_counts on the same column lists them with 0. Only .astype(int) refuses.
# Why it surprises: none of them warns, and each of them is the obvious one-liner.
# Consequence: unannotated images train as positives of a class, or as negatives of all; the absent tail
# class is missing from one table and shifts the columns against the other.
# Remedy: keep the mask Y.notna() first and fill after; observed=False for counts by groupby.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'pandas==3.1.1'
venv/bin/python - <<'EOF'
import pandas as pd

column = pd.Series([1, None, 0, -1])
present = column.astype(bool).tolist()
lists = pd.Series(["cat|dog", None, "dog"])
row = lists.str.get_dummies().iloc[1].tolist()
single = pd.get_dummies(pd.Series(["cat", None, "dog"])).iloc[1].tolist()
print("expected: unknown stays unknown, or an error")
print(f"seen: astype(bool) of [1, nan, 0, -1] {present}; row of the missing list {row}, label {single}")
assert present == [True, True, False, True] and row == [0, 0] and single == [False, False]
frame = pd.DataFrame({"label": pd.Categorical(["cat", "cat"], categories=["cat", "tail"])})
grouped, counted = frame.groupby("label").size().to_dict(), frame["label"].value_counts().to_dict()
print("expected: the class without images has count 0 in both")
print(f"seen: groupby {grouped}, value_counts {counted}")
assert grouped == {"cat": 2} and counted == {"cat": 2, "tail": 0}
EOF
