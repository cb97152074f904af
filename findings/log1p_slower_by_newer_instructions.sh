#!/usr/bin/env bash
# torch 2.14.1: on a CPU with AVX-512, log1p and expm1 take several times as long as by AVX2 on the same CPU.
# What it does: by its default choice of instructions log1p and expm1 of a million float32 take about ten times as
# long as log and exp; with ATEN_CPU_CAPABILITY=avx2 they take at most about twice as long as those.
# binary_cross_entropy_with_logits, softplus and logsigmoid call log1p and are slowed with it.
# Why it surprises: the wider instructions are chosen automatically as the faster ones, and log, exp and
# sigmoid show no such loss; results agree, so nothing but a clock tells.
# Consequence: the usual loss of multi-label training, and whatever is compared with it on a CPU, is timed wrong;
# a loss written by log of sigmoid looks better than it is.
# Remedy: ATEN_CPU_CAPABILITY=avx2 before Python starts, where the loss counts; name the capability with each timing.
set -euo pipefail
grep -qw avx512f /proc/cpuinfo || { echo "skipped: this CPU has no AVX-512"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'torch==2.14.1'
cat > measure.py <<'EOF'
import json
import time
import torch
import torch.nn.functional as F

torch.set_num_threads(1)
values = torch.rand(1_000_000)
target = (values > 0.9).float()
calls = {name: (lambda f=getattr(torch, name): f(values)) for name in ("log", "log1p", "exp", "expm1")}
calls["loss"] = lambda: F.binary_cross_entropy_with_logits(values, target)
best = dict.fromkeys(calls, float("inf"))
for _ in range(12):
    for name, call in calls.items():
        start = time.process_time()
        call()
        best[name] = min(best[name], 1000 * (time.process_time() - start))
print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), **best}))
EOF
venv/bin/python measure.py > default.json
ATEN_CPU_CAPABILITY=avx2 venv/bin/python measure.py > avx2.json
venv/bin/python - <<'EOF'
import json

default, avx2 = (json.load(open(f"{name}.json")) for name in ("default", "avx2"))
if default["capability"] != "AVX512":
    print(f"skipped: torch chose {default['capability']}")
    raise SystemExit
print("expected: AVX-512 no slower than AVX2, in ms of CPU time")
for name in ("log", "exp", "log1p", "expm1", "loss"):
    print(f"seen: {name} {default[name]:.2f} by AVX-512, {avx2[name]:.2f} by AVX2")
assert default["log"] < 2 * avx2["log"] and default["exp"] < 2 * avx2["exp"]
assert default["log1p"] > 2.5 * avx2["log1p"] and default["expm1"] > 2.5 * avx2["expm1"]
assert default["loss"] > 1.5 * avx2["loss"]
EOF
