#!/usr/bin/env bash
# PyYAML 6.0.4: zero-padded ids, times and small rates in a YAML file.
# What it does: 000123 is read in base 8 (83), but 000139 stays text, as 9 is no octal digit: ONE list of ids holds both.
# 12:30:45 is 45045 (base 60). 1e-4 is text, since a float needs a dot. OmegaConf (Hydra) reads 1e-4 as a
# number from the same file, and 000123 as 83 all the same.
# Why it surprises: most know of no -> False; few that a padded id turns into another number, only if its digits allow.
# Consequence: a list of held-out images points to other images, silently about one id in four (six free digits, all below 8); a learning rate is a
# string in one framework and a number in the other.
# Remedy: quote ids, write 1.0e-4, check types against a schema on reading.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'PyYAML==6.0.4' 'omegaconf==2.4.0'
venv/bin/python - <<'EOF'
import yaml
from omegaconf import OmegaConf

text = "ids: [000139, 000123]\nat: 12:30:45\nlr: 1e-4\nnames: [cat, no]\n"
plain, omega = yaml.safe_load(text), OmegaConf.to_container(OmegaConf.create(text))
print("expected: ids ['000139', '000123'] (or [139, 123]), at '12:30:45', lr 0.0001")
print(f"seen: PyYAML {plain}; OmegaConf {omega}")
assert plain == {"ids": ["000139", 83], "at": 45045, "lr": "1e-4", "names": ["cat", False]}
assert omega["lr"] == 0.0001 and omega["ids"] == ["000139", 83]
EOF
