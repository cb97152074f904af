#!/usr/bin/env bash
# webdataset 1.0.2: file names with more than one dot in a tar shard.
# What it does: the key of a sample ends at the FIRST dot of the base name. photo.1.jpg and photo.2.jpg
# are one sample "photo" with the fields "1.jpg" and "2.jpg"; there is no field "jpg".
# Why it surprises: every other tool cuts the name at the last dot (os.path.splitext).
# Consequence: crops and versions such as scene.1.jpg, scene.2.jpg become one sample, the sample count
# of the epoch is wrong, and pipelines that skip samples without "jpg" drop them unseen.
# Remedy: replace the dots of the stem before writing, and compare the sample count with the files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'webdataset==1.0.2'
venv/bin/python - <<'EOF'
import io, os, tarfile
import webdataset

with tarfile.open("shard.tar", "w") as tar:
    for name in ("photo.1.jpg", "photo.1.cls", "photo.2.jpg", "photo.2.cls"):
        data = b"0"
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
samples = list(webdataset.WebDataset("shard.tar", shardshuffle=False))
fields = [sorted(k for k in s if not k.startswith("__")) for s in samples]
print(f"expected: 2 samples, {os.path.splitext('photo.1.jpg')[0]} and photo.2, each with cls and jpg")
print(f"seen: {len(samples)} sample, {samples[0]['__key__']}, with {fields[0]}")
assert len(samples) == 1 and samples[0]["__key__"] == "photo"
assert fields == [["1.cls", "1.jpg", "2.cls", "2.jpg"]]
EOF
