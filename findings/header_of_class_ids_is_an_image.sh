#!/usr/bin/env bash
# duckdb 2.0.1: the header of a label table whose columns are category ids is read as one more image.
# What it does: read_csv decides by the types of the cells whether there is a header; with columns named 1 and 18 (ids of
# categories) or 1990 (years) the first line fits the numbers below, so it becomes a row called "image" and the
# columns are called column0, column1, ... A column that holds only the letters t and f becomes true and false.
# Why it surprises: one text column has a name that none of its values resembles, pandas takes the first line in any case,
# and the table of the same data with names of classes is read right.
# Consequence: one image too many, the count of category 18 is 18 too large, which for a rare class is
# most of it; nothing is raised.
# Remedy: header = true, and types = {...} for columns of letters.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'duckdb==2.0.1'
venv/bin/python - <<'EOF'
from pathlib import Path
import duckdb

rows = "a.jpg,1,0\nb.jpg,1,1\nc.jpg,0,0\n"
Path("ids.csv").write_text("image,1,18\n" + rows)
Path("names.csv").write_text("image,person,sheep\n" + rows)
ids, names = duckdb.sql("from read_csv('ids.csv')"), duckdb.sql("from read_csv('names.csv')")
total = sum(row[2] for row in ids.fetchall())
print("expected: columns image, 1, 18; 3 images, 1 of them with category 18")
print(f"seen: columns {', '.join(ids.columns)}; {len(ids)} images, {total} with category 18")
assert len(names) == 3 and names.columns == ["image", "person", "sheep"]
assert len(ids) == 4 and total == 19 and ids.fetchall()[0] == ("image", 1, 18)
told = duckdb.sql("from read_csv('ids.csv', header = true)")
assert told.columns == ["image", "1", "18"] and len(told) == 3

Path("letters.csv").write_text("image,class\na.jpg,t\nb.jpg,f\n")
classes = [row[1] for row in duckdb.sql("from read_csv('letters.csv')").fetchall()]
print("expected: classes t and f")
print(f"seen: {classes}")
assert classes == [True, False]
EOF
