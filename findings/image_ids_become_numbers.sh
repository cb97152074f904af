#!/usr/bin/env bash
# pandas 3.1.1: image ids such as "000139" in read_json and in a long read_csv.
# What it does: (a) read_json turns QUOTED strings into numbers where a whole column allows it: "000139" is 139, and "1e5" is
# 100000; (b) read_csv guesses the type chunk by chunk: if one id far down has a letter, the first 262 144 ids
# are integers without zeros and the rest are strings with them, in one column (a warning says "mixed types").
# Why it surprises: JSON states the type, so quotes should hold; and in (b) the cut depends on where in the file
# the odd id stands, so that a sample of the file reads well.
# Consequence: the ids no longer match the file names; a join loses most images, or matches only the last part.
# Remedy: dtype={"image_id": str} in read_csv, dtype=False in read_json; or the json module.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'pandas==3.1.1'
venv/bin/python - <<'EOF'
import io, json, warnings
from collections import Counter
import pandas as pd

warnings.simplefilter("ignore")
records = [{"image_id": "000139"}, {"image_id": "1e5"}]
read = pd.read_json(io.StringIO(json.dumps(records)))["image_id"].tolist()
print("expected: ['000139', '1e5']")
print(f"seen: {read}")
assert read == [139, 100000]
kept = pd.read_json(io.StringIO(json.dumps(records)), dtype=False)["image_id"].tolist()
assert kept == ["000139", "1e5"]

names = [f"{i:06d}" for i in range(300_000)] + ["extra1"]
ids = pd.read_csv(io.StringIO("image_id,label\n" + "".join(f"{n},cat\n" for n in names)))["image_id"]
kinds = Counter(map(type, ids))
print("expected: 300001 strings, since one id has letters")
print(f"seen: {kinds[int]} integers and {kinds[str]} strings; first {ids.iloc[5]!r}, near the end {ids.iloc[-2]!r}")
assert kinds[int] > 100_000 and kinds[str] > 10_000 and ids.iloc[5] == 5 and ids.iloc[-2] == "299999"
EOF
