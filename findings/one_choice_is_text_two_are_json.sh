#!/usr/bin/env bash
# label-studio-sdk 2.1.2: multi-label choices in the CSV and JSON-MIN exports.
# What it does: one chosen class is written as bare text, two or more as JSON {"choices": [...]}; an image that was judged
# and found empty has an empty cell, as has an image that nobody judged (told apart by annotation_id only).
# Why it surprises: the type of a field depends on the number of labels, not on the labelling set-up (choice="multiple").
# Consequence: a reader written on the first rows sees single labels only, or turns '{"choices": ...}' into a class of
# its own; "none of the classes" and "unknown" fall together.
# Remedy: export full JSON and read result[...]["value"]["choices"], always a list; keep rows without annotation_id apart.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'label-studio-sdk==2.1.2'
venv/bin/python - <<'EOF'
import csv, json, os
from label_studio_sdk.converter import Converter

config = ('<View><Image name="image" value="$image"/><Choices name="label" toName="image" choice="multiple">'
          '<Choice value="cat"/><Choice value="dog"/></Choices></View>')
stamp, tasks = "2024-01-01T00:00:00Z", []
for i, chosen in enumerate([["cat"], ["cat", "dog"], []]):
    result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": chosen}}]
    tasks.append({"id": i, "data": {"image": f"{i}.jpg"}, "annotations": [
        {"id": i, "result": result if chosen else [], "was_cancelled": False, "completed_by": 1, "lead_time": 1.0,
         "created_at": stamp, "updated_at": stamp}]})
tasks.append({"id": 3, "data": {"image": "3.jpg"}, "annotations": []})
json.dump(tasks, open("tasks.json", "w"))
converter = Converter(config, os.getcwd())
converter.convert_to_csv("tasks.json", "out", is_dir=False, sep=",", header=True)
converter.convert_to_json_min("tasks.json", "out_min", is_dir=False)
table = next(f for f in os.listdir("out") if f.endswith(".csv"))
cells = [row["label"] for row in csv.DictReader(open(f"out/{table}"))]
fields = [row.get("label") for row in json.load(open("out_min/result.json"))]
print("expected: four lists: [cat], [cat, dog], [] and a mark for the image nobody judged")
print(f"seen: CSV {cells}; JSON-MIN {fields}")
assert cells == ["cat", '{"choices":["cat","dog"]}', "", ""]
assert fields == ["cat", {"choices": ["cat", "dog"]}, None, None]
EOF
