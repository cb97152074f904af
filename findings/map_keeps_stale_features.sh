#!/usr/bin/env bash
# datasets 5.2.0 (Hugging Face): Dataset.map and its cache, with a function from another module.
# What it does: the cache key is a hash of the function, its closure and its globals; a function that
# is IMPORTED from a module is hashed by name alone. Edit the module, run again: the old result comes
# back from disk, without a word.
# Why it surprises: change the same line inside the script or notebook and the map is computed anew,
# so one learns to trust the cache.
# Consequence: features, soft labels or cleaned labels of the version before the fix train the model.
# Remedy: load_from_cache_file=False while the code changes, new_fingerprint=, or a version
# string among fn_kwargs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'datasets==5.2.0'
venv/bin/python - <<'EOF'
import os, subprocess, sys

os.environ.update(HF_HUB_OFFLINE="1", HF_HOME=os.path.abspath("cache"))
open("labels.csv", "w").write("image\na.jpg\nb.jpg\n")
script = """
import datasets
datasets.disable_progress_bars()
rows = datasets.load_dataset("csv", data_files="labels.csv", split="train")
{}
print(rows.map({})["size"][0])
"""


def run(define, name):
    code = script.format(define, name)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env=os.environ | {"PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"}).stdout)


inside = [run(f"def f(row): return {{'size': {n}}}", "f") for n in (224, 4480)]
imported = []
for n in (224, 4480):
    open("features.py", "w").write(f"def f(row): return {{'size': {n}}}\n")
    imported.append(run("import features", "features.f"))
print("expected: after the edit both give 4480")
print(f"seen: defined in the script {inside}, imported from a module {imported}")
assert inside == [224, 4480] and imported == [224, 224]
EOF
