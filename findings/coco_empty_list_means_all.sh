#!/usr/bin/env bash
# pycocotools 2.0.11: COCO.getImgIds, getAnnIds, getCatIds as selections.
# What they do: (a) an empty list is "no filter": the annotations of no image are ALL annotations, and a
# misspelt class name, which gives no category id, selects everything; (b) getImgIds(catIds=[a, b])
# gives images that hold both, getAnnIds(catIds=[a, b]) those of either; (c) getCatIds(catNms=[...])
# answers in the file's order, not in the order asked.
# Why it surprises: a filter that matches nothing selects nothing elsewhere, and the same argument of two
# sister functions should mean the same.
# Consequence: label columns in the wrong order, "either" sets that lose most images, an empty subset
# that is the whole set.
# Remedy: guard for empty ids; take {anns[i]["image_id"] for i in getAnnIds(...)} for "either";
# map names to ids by a dictionary of loadCats.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'numpy==2.4.6' 'pycocotools==2.0.11'
venv/bin/python - <<'EOF'
import contextlib, io
from pycocotools.coco import COCO

coco = COCO()
coco.dataset = {
    "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
    "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    "annotations": [
        {"id": n, "image_id": i, "category_id": c, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
        for n, (i, c) in enumerate([(1, 17), (1, 18), (2, 17), (3, 18)], start=1)
    ],
}
with contextlib.redirect_stdout(io.StringIO()):
    coco.createIndex()
misspelt = coco.getAnnIds(catIds=coco.getCatIds(catNms=["catt"]))
both = sorted(coco.getImgIds(catIds=[17, 18]))
either = sorted({coco.anns[a]["image_id"] for a in coco.getAnnIds(catIds=[17, 18])})
order = coco.getCatIds(catNms=["cat", "dog"])
print("expected: no annotation of no image, none of a misspelt class; one meaning of catIds; cat before dog")
print(f"seen: of no image {len(coco.getAnnIds(imgIds=[]))} annotations, of 'catt' {len(misspelt)}; "
      f"images by catIds {both}, by their annotations {either}; asked cat, dog, got {order} (dog is 18)")
assert len(coco.getAnnIds(imgIds=[])) == 4 and len(misspelt) == 4
assert both == [1] and either == [1, 2, 3] and order == [18, 17]
EOF
