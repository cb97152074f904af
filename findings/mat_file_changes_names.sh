#!/usr/bin/env bash
# scipy 1.17.1: class names and label lists that go through a MATLAB file come back changed.
# What it does: savemat turns a list of names into one character array, so loadmat gives each name padded with blanks to
# the longest ("cat   "); squeeze_me and simplify_cells make the list of one label a
# bare number, the list of no label an array of floats, and the matrix of one image a vector.
# Why it surprises: both ends are the same library, NumPy does not pad, and the printed table
# looks right; simplify_cells is offered as the convenient way.
# Consequence: `names.index("cat")` fails or a class gets no images; `for label in labels` breaks on images with one label;
# axis 1 is images or classes by how many images there are.
# Remedy: save names as an object array; load without squeezing and take np.ravel(cell).astype(int).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'scipy==1.17.1'
venv/bin/python - <<'EOF'
import numpy as np
from scipy.io import loadmat, savemat

names = ["cat", "person"]
boxed = np.array(names, dtype=object)
labels = np.empty(3, dtype=object)
labels[:] = [[1, 2], [3], []]
savemat("labels.mat", {"names": names, "boxed": boxed, "labels": labels, "matrix": np.array([[1, 0, 1]])})

plain = loadmat("labels.mat")
print(f"expected: {names}")
print(f"seen: {plain['names'].tolist()}")
assert plain["names"].tolist() == ["cat   ", "person"]
assert [str(n[0]) for n in plain["boxed"].ravel()] == names
assert [np.ravel(cell).astype(int).tolist() for cell in plain["labels"].ravel()] == [[1, 2], [3], []]

for option in ("squeeze_me", "simplify_cells"):
    read = loadmat("labels.mat", **{option: True})
    cells = read["labels"]
    print("expected: three arrays of integers with 2, 1 and 0 labels, a matrix of shape (1, 3)")
    print(f"seen with {option}: {[(type(c).__name__, np.asarray(c).dtype.kind) for c in cells]}, shape {read['matrix'].shape}")
    assert cells[0].tolist() == [1, 2] and cells[1] == 3 and not isinstance(cells[1], np.ndarray)
    assert cells[2].dtype.kind == "f" and read["matrix"].shape == (3,)
EOF
