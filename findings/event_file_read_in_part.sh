#!/usr/bin/env bash
# tensorboard 2.21.0: EventAccumulator(folder).Scalars(tag), the usual way to read a log back.
# What it does: it keeps a random sample: at most 10 000 scalars a tag, 4 images and ONE histogram, and says nothing. The
# files hold all of them.
# Why it surprises: the class is the programmatic reader, not the screen, where thinning is known; the
# first and last steps are there, so a plot looks whole.
# Consequence: per-step gradient or loss curves of long runs lack half of the steps, maxima and counts are wrong, and the
# history of per-class histograms is a single one.
# Remedy: size_guidance={"scalars": 0, "histograms": 0, "images": 0}, where 0 means "all".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'tensorboard==2.21.0' 'tensorboardX==2.6.5'
venv/bin/python - <<'EOF'
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

with SummaryWriter("run") as writer:
    for step in range(20_000):
        writer.add_scalar("loss", float(step == 777), step)
    for step in range(30):
        writer.add_histogram("gradient", np.arange(10.0), step)
default, full = EventAccumulator("run"), EventAccumulator("run", size_guidance={"scalars": 0, "histograms": 0})
count = [(len(r.Reload().Scalars("loss")), len(r.Histograms("gradient"))) for r in (default, full)]
print("expected: 20000 scalars and 30 histograms")
print(f"seen: {count[0]} by default, {count[1]} with size_guidance 0; last step {default.Scalars('loss')[-1].step}")
assert count == [(10_000, 1), (20_000, 30)]
EOF
