#!/usr/bin/env bash
# matplotlib 3.11.2: class names with a leading underscore, and the same name twice.
# What it does: (a) an artist whose label starts with "_" is left out of the legend, with no word: "_background_", the
# name annotation tools give it, is drawn and not named; (b) bars of equal names are drawn on top of each other, the
# later hiding or merging with the earlier (seaborn shows their mean instead).
# Why it surprises: the curve is there, so the legend seems complete and its colours are read one off; 3 bars
# that go in are 2 places on the axis.
# Consequence: figures over label lists of annotation tools; data sets with two classes of one name (ImageNet has "crane"
# the bird and "crane" the machine).
# Remedy: put a character before the name ("\u200b_background_"), pass range(len(names)) and set tick labels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'matplotlib==3.11.2' 'seaborn==0.13.2' 'pandas==3.1.1'
venv/bin/python - <<'EOF'
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import seaborn

axes = plt.subplots()[1]
for name in ("_background_", "cat", "__ignore__"):
    axes.plot([0, 1], label=name)
legend = [t.get_text() for t in axes.legend().get_texts()]
print("expected: a legend of 3 classes")
print(f"seen: {len(axes.lines)} lines, legend {legend}")
assert legend == ["cat"] and len(axes.lines) == 3
names, counts = ["crane", "cat", "crane"], [50, 1, 5]
axes = plt.subplots()[1]
places = [float(round(b.get_x() + b.get_width() / 2, 6)) for b in axes.bar(names, counts)]
axes = plt.subplots()[1]
seaborn.barplot(x=names, y=counts, ax=axes, errorbar=None)
heights = [float(p.get_height()) for p in axes.patches]
print("expected: 3 bars side by side, 50, 1, 5")
print(f"seen: matplotlib at {places}, seaborn heights {heights}")
assert places == [0, 1, 0] and heights == [27.5, 1]
axes.plot([0], label="\u200b_background_")
assert len(axes.legend().get_texts()) == 1
EOF
