#!/usr/bin/env bash
# asv_runner 0.3.2, psutil 7.2.2 (CPython and Linux): the peak memory of a child process begins at its parent's peak.
# What it does: `ru_maxrss` of a process that subprocess starts is at least the largest size that its parent ever had,
# freed since or not, though a new program was loaded; asv's `peakmem_` benchmarks report this number.
# Why it surprises: one starts a fresh process so that its memory is counted alone, and the current size of
# the same process, or VmHWM in /proc/self/status, is right.
# Consequence: measured from a notebook or a test run that has held a data set, every variant takes the same memory,
# and a saving does not show.
# Remedy: VmHWM of /proc/self/status, or start the child from a small launcher made before the data are loaded.
set -euo pipefail
[ -r /proc/self/status ] || { echo "skipped: this is not Linux"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'asv_runner==0.3.2' 'psutil==7.2.2'
cat > child.py <<'EOF'
import json
import re
import psutil
from asv_runner.benchmarks.peakmem import PeakMemBenchmark


def peakmem_nothing():
    pass


peak = PeakMemBenchmark("peakmem_nothing", peakmem_nothing, [peakmem_nothing]).run()
high = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1]) * 1024
print(json.dumps([peak / 2**20, high / 2**20, psutil.Process().memory_info().rss / 2**20]))
EOF
venv/bin/python - <<'EOF'
import json
import subprocess
import sys


def measure():
    return json.loads(subprocess.check_output([sys.executable, "child.py"]))


before = measure()
data = bytearray(b"x") * (300 * 2**20)
del data
after = measure()
print("expected: the same peak of a benchmark that does nothing, before and after its parent held 300 MiB")
print(f"seen: {before[0]:.0f} MiB before, {after[0]:.0f} after; VmHWM {before[1]:.0f} and {after[1]:.0f}, "
      f"current size {before[2]:.0f} and {after[2]:.0f}")
assert before[0] < 100 and after[0] > 300
assert after[1] < 100 and after[2] < 100
EOF
