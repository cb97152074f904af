"""Small data sets in the layouts of the field's tools, built by hand from their documentation.

Each holds the same photos and labels; :data:`WANT` is what every reader should find.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "traffic light")
WANT = {
    "train": {
        "a1": {"cat"},
        "a2": {"cat", "dog"},
        "a3": set(),
        "a4": {"traffic light"},
        "a5": {"dog", "traffic light"},
    },
    "val": {"b1": {"dog"}, "b2": {"cat"}},
    "test": {"c1": {"cat", "traffic light"}, "c2": {"dog"}},
}
WHOLE = {name: labels for split in WANT.values() for name, labels in split.items()}


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))  # no two are alike
    pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def text(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def index(labels) -> list[int]:
    return sorted(CLASSES.index(name) for name in labels)


def roboflow(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        lines = ["filename, cat, dog, traffic light"]
        for name, labels in WANT[split].items():
            file = f"{name}_jpg.rf.0a1b2c3d.jpg"
            photo(root / folder / file)
            flags = [str(int(c in labels)) for c in CLASSES]
            lines.append(", ".join([file, *flags]))
        text(root / folder / "_classes.csv", "\n".join(lines))
    text(root / "README.roboflow.txt", "photos - v1\n")


def coco_of(split: str, name=lambda n: {"file_name": f"{n}.jpg"}, box=True, first=0) -> dict:
    images, annotations = [], []
    for i, (image, labels) in enumerate(WANT[split].items(), first + 1):
        images.append({"id": i, "width": 40, "height": 40} | name(image))
        for c in index(labels):
            entry = {"id": len(annotations), "image_id": i, "category_id": c + 1, "iscrowd": 0}
            annotations.append(entry | ({"bbox": [1, 1, 9, 9], "area": 81} if box else {}))
    categories = [
        {"id": c + 1, "name": n, "supercategory": "things"} for c, n in enumerate(CLASSES)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def roboflow_coco(root: Path) -> None:
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        content = coco_of(split, lambda n: {"file_name": f"{n}_jpg.rf.0a.jpg", "license": 1})
        content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
        text(root / folder / "_annotations.coco.json", content)
        for name in WANT[split]:
            photo(root / folder / f"{name}_jpg.rf.0a.jpg")


def coco_plain(root: Path) -> None:
    """Other file names, no boxes."""
    for split in WANT:
        text(root / f"annotations/photos-{split}.json", coco_of(split, box=False))
        for name in WANT[split]:
            photo(root / "photos" / f"{name}.jpg")


def coco_url(root: Path) -> None:
    """No file names."""
    for split in WANT:
        folder = f"{split}2017"

        def name(image, folder=folder):
            return {"coco_url": f"http://images.cocodataset.org/{folder}/{image}.jpg"}

        text(root / f"annotations/instances_{folder}.json", coco_of(split, name))
        for image in WANT[split]:
            photo(root / folder / f"{image}.jpg")


def lvis(root: Path) -> None:
    """Each image verified for its labels and for one absent class; the rest is unknown."""
    for split in ("train", "val"):

        def name(image):
            return {
                "coco_url": f"http://images.cocodataset.org/train2017/{image}.jpg",
                "neg_category_ids": [c + 1 for c in lvis_absent(image)],
                "not_exhaustive_category_ids": [c + 1 for c in index(WHOLE[image])[:1]],
            }

        text(root / f"lvis_v1_{split}.json", coco_of(split, name))
        for image in WANT[split]:
            photo(root / "train2017" / f"{image}.jpg")


def lvis_absent(image: str) -> list[int]:
    return [c for c in range(3) if CLASSES[c] not in WHOLE[image]][:1]


def objects365(root: Path) -> None:
    for split, patch in (("train", 0), ("val", 3)):

        def name(image, patch=patch):
            return {"file_name": f"images/v1/patch{patch}/objects365_v1_{image}.jpg", "url": ""}

        text(root / f"zhiyuan_objv2_{split}.json", coco_of(split, name))
        for image in WANT[split]:
            photo(root / split / f"patch{patch}" / f"objects365_v1_{image}.jpg")


def label_studio_json(root: Path) -> None:
    tasks = []
    for i, (name, labels) in enumerate(WHOLE.items(), 1):
        value = {"choices": sorted(labels)}
        result = {"value": value, "from_name": "tags", "to_name": "image", "type": "choices"}
        annotation = {
            "id": i,
            "completed_by": 1,
            "result": [result | {"id": "x1", "origin": "manual"}] if labels else [],
            "was_cancelled": False,
            "ground_truth": False,
            "lead_time": 3.1,
        }
        file = f"0f9e8d7c-{name}.jpg"
        task = {"id": i, "annotations": [annotation], "file_upload": file, "predictions": []}
        tasks.append(task | {"data": {"image": f"/data/upload/1/{file}"}, "meta": {}, "project": 1})
        photo(root / "upload/1" / file)
    skipped = tasks[0]["annotations"][0] | {"was_cancelled": True, "result": []}
    tasks.append({"id": 90, "annotations": [skipped], "data": {"image": "/data/upload/1/z.jpg"}})
    tasks.append({"id": 91, "annotations": [], "data": {"image": "/data/upload/1/y.jpg"}})
    text(root / "project-1-at-2024-05-06-07-08-0a1b2c3d.json", tasks)


def _min_rows() -> list[dict]:
    rows = []
    for i, (name, labels) in enumerate(WHOLE.items(), 1):
        row = {"image": f"/data/local-files/?d=photos/my%20{name}.jpg", "id": i}
        if len(labels) == 1:
            row["choice"] = min(labels)
        elif labels:
            row["choice"] = {"choices": sorted(labels)}
        own = {"annotator": 1, "annotation_id": i, "lead_time": 2.5}
        rows.append(row | own | {"created_at": "2024-05-06T07:08:09Z", "updated_at": "2024"})
    return rows


def label_studio_min(root: Path) -> None:
    text(root / "project-1-at-2024-05-06.json", _min_rows())
    for name in WHOLE:
        photo(root / "photos" / f"my {name}.jpg")


def label_studio_csv(root: Path) -> None:
    import csv

    rows = _min_rows()
    with (root / "project-1.csv").open("w", newline="") as file:
        fields = ["annotation_id", "annotator", "choice", "created_at", "id", "image", "lead_time"]
        writer = csv.DictWriter(file, [*fields, "updated_at"])
        writer.writeheader()
        for row in rows:
            choice = row.get("choice", "")
            row["choice"] = json.dumps(choice) if isinstance(choice, dict) else choice
            writer.writerow(row)
    for name in WHOLE:
        photo(root / f"my {name}.jpg")  # the originals, without the folder


def cvat(root: Path, shapes: bool = False) -> None:
    labels = "".join(f"<label><name>{c}</name><type>tag</type></label>" for c in CLASSES)
    images = []
    for i, (name, row) in enumerate(WHOLE.items()):
        inside = "".join(
            f'<box label="{c}" source="manual" occluded="0" xtl="1" ytl="1" xbr="9" ybr="9"/>'
            if shapes
            else f'<tag label="{c}" source="manual"><attribute name="sure">1</attribute></tag>'
            for c in sorted(row)
        )
        split = next(split for split, rows in WANT.items() if name in rows).capitalize()
        subset = {"Val": "Validation"}.get(split, split)
        images.append(
            f'<image id="{i}" name="{name}.png" subset="{subset}" task_id="4" width="40" '
            f'height="40">{inside}</image>'
        )
        photo(root / f"images/{subset}/{name}.png")
    text(
        root / "annotations.xml",
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><project>'
        f"<labels>{labels}</labels></project></meta>{''.join(images)}</annotations>",
    )


def cvat_boxes(root: Path) -> None:
    cvat(root, shapes=True)


def datumaro(root: Path) -> None:
    label = {"labels": [{"name": c, "parent": "", "attributes": []} for c in CLASSES]}
    for split, rows in WANT.items():
        items = []
        for i, (name, labels) in enumerate(rows.items()):
            annotations = [
                {"id": c, "type": "label", "attributes": {}, "group": 0, "label_id": c}
                for c in index(labels)
            ]
            item = {"id": name, "annotations": annotations, "attr": {"frame": i}}
            items.append(item | {"image": {"path": f"{name}.jpg", "size": [40, 40]}})
            photo(root / f"images/{split}/{name}.jpg")
        content = {"dm_format_version": "1.0", "infos": {}, "categories": {"label": label}}
        text(root / f"annotations/{split}.json", content | {"items": items})


def fiftyone(root: Path) -> None:
    for split, rows in WANT.items():
        folder = root / {"val": "validation"}.get(split, split)
        labels = {
            name: {"classifications": [{"label": c, "confidence": None} for c in sorted(row)]}
            for name, row in rows.items()
        }
        text(folder / "labels.json", {"classes": list(CLASSES), "labels": labels})
        for name in rows:
            photo(folder / "data" / f"{name}.jpg")


def fiftyone_samples(root: Path) -> None:
    samples = []
    for split, rows in WANT.items():
        for name, labels in rows.items():
            field = {"_cls": "Classifications", "logits": None}
            field["classifications"] = [
                {"_cls": "Classification", "label": c, "tags": []} for c in sorted(labels)
            ]
            sample = {"filepath": f"data/{name}.jpg", "tags": [split, "kept"], "tags_": field}
            samples.append(sample)
            photo(root / "data" / f"{name}.jpg")
    text(root / "samples.json", {"samples": samples})
    text(root / "metadata.json", {"name": "mine", "media_type": "image"})


MIDS = {"cat": "/m/01yrx", "dog": "/m/0bt9lr", "traffic light": "/m/015qff"}


def open_images(root: Path) -> None:
    """As LVIS: each image verified for its labels and one absent class; machine labels besides."""
    for split in ("train", "validation"):
        rows, machine = [], []
        for name in WANT["val" if split == "validation" else split]:
            image = f"00{name}ffff"
            for c in sorted(WHOLE[name]):
                rows.append(f"{image},verification,{MIDS[c]},1")
            for c in lvis_absent(name):
                rows.append(f"{image},verification,{MIDS[CLASSES[c]]},0")
            machine.append(f"{image},machine,{MIDS['dog']},0.7")
            photo(root / split / f"{image}.jpg")
        rows.append("ffffffffffffffff,verification,/m/04yx4,1")  # an image that was not fetched
        head = "ImageID,Source,LabelName,Confidence\n"
        text(root / f"{split}-annotations-human-imagelabels.csv", head + "\n".join(rows))
        text(root / f"{split}-annotations-machine-imagelabels.csv", head + "\n".join(machine))
    names = {**{mid: name for name, mid in MIDS.items()}, "/m/04yx4": "Man"}
    lines = ["LabelName,DisplayName", *(f"{mid},{name}" for mid, name in names.items())]
    text(root / "oidv7-class-descriptions.csv", "\n".join(lines))


def annotation(labels, hard=()) -> str:
    objects = "".join(
        f"<object><name>{c}</name><difficult>{int(c in hard)}</difficult><bndbox><xmin>1</xmin>"
        "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        for c in sorted(labels)
    )
    return f"<annotation><folder>x</folder><filename>x.jpg</filename>{objects}</annotation>"


def voc(root: Path) -> None:
    """One's own classes, and an image without objects."""
    tree = root / "mine"
    for split, rows in WANT.items():
        text(tree / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in rows))
        for name, labels in rows.items():
            text(tree / f"Annotations/{name}.xml", annotation(labels))
            photo(tree / f"JPEGImages/{name}.jpg")


def voc_sets(root: Path) -> None:
    """Classification sets without annotations, as Datumaro and CVAT export them."""
    for split, rows in WANT.items():
        text(root / f"ImageSets/Main/{split}.txt", "".join(f"{name}\n" for name in rows))
        for c in CLASSES:
            lines = [f"{name} {1 if c in labels else -1:2}\n" for name, labels in rows.items()]
            text(root / f"ImageSets/Main/{c.replace(' ', '')}_{split}.txt", "".join(lines))
        for name in rows:
            photo(root / f"JPEGImages/{name}.jpg")
    text(
        root / "labelmap.txt", "# label:color_rgb:parts:actions\ncat:::\ndog:::\ntrafficlight:::\n"
    )


def voc_xml(root: Path) -> None:
    """Annotations beside the images, as Roboflow exports them."""
    for split, rows in WANT.items():
        folder = root / {"val": "valid"}.get(split, split)
        for name, labels in rows.items():
            text(folder / f"{name}.xml", annotation(labels))
            photo(folder / f"{name}.jpg")


def paddle(root: Path) -> None:
    for split, rows in WANT.items():
        lines = []
        for name, labels in rows.items():
            flags = ",".join(str(int(c in labels)) for c in CLASSES)
            lines.append(f"images/{name}.jpg\t{flags}\n")
            photo(root / f"images/{name}.jpg")
        text(root / f"multilabel_{split}_list.txt", "".join(lines))
    text(root / "label_list.txt", "".join(f"{i} {c}\n" for i, c in enumerate(CLASSES)))


def nus_wide(root: Path) -> None:
    for split in ("train", "test"):
        rows, word = WANT[split], split.capitalize()
        images = [f"animals\\{name}.jpg\r\n" for name in rows]
        text(root / f"ImageList/{word}Imagelist.txt", "".join(images))
        for c in CLASSES:
            flags = [f"{int(c in labels)}\n" for labels in rows.values()]
            path = root / f"Groundtruth/TrainTestLabels/Labels_{c.replace(' ', '')}_{word}.txt"
            text(path, "".join(flags))
        for name in rows:
            photo(root / f"Flickr/animals/{name}.jpg")


def yolo(root: Path) -> None:
    for split, rows in WANT.items():
        for name, labels in rows.items():
            photo(root / f"images/{split}/{name}.jpg")
            if labels:
                lines = [f"{c} 0.5 0.5 0.2 0.2\n" for c in index(labels)]
                text(root / f"labels/{split}/{name}.txt", "".join(lines))
    names = "".join(f"  {i}: {c}\n" for i, c in enumerate(CLASSES))
    text(root / "data.yaml", f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}")


def yolo_roboflow(root: Path) -> None:
    for split, rows in WANT.items():
        folder = root / {"val": "valid"}.get(split, split)
        for name, labels in rows.items():
            photo(folder / f"images/{name}.jpg")
            lines = [f"{c} 0.1 0.1 0.2 0.1 0.2 0.2\n" for c in index(labels)]  # outlines
            text(folder / f"labels/{name}.txt", "".join(lines))
    text(root / "data.yaml", f"train: ../train/images\nnc: 3\nnames: {list(CLASSES)}\n")


def yolo_cvat(root: Path) -> None:
    for split, rows in WANT.items():
        folder = f"obj_{split}_data"
        for name, labels in rows.items():
            photo(root / f"{folder}/{name}.jpg")
            lines = [f"{c} 0.500000 0.500000 0.200000 0.200000\n" for c in index(labels)]
            text(root / f"{folder}/{name}.txt", "".join(lines))
        text(root / f"{split}.txt", "".join(f"data/{folder}/{name}.jpg\n" for name in rows))
    text(root / "obj.names", "".join(f"{c}\n" for c in CLASSES))
    text(root / "obj.data", "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\n")


# name of the tree -> how it is built, and the name under which the catalog has its reader
TREES = {
    "roboflow": (roboflow, "roboflow"),
    "roboflow-coco": (roboflow_coco, "coco"),
    "coco-plain": (coco_plain, "coco"),
    "coco-url": (coco_url, "coco"),
    "lvis": (lvis, "lvis"),
    "objects365": (objects365, "objects365"),
    "label-studio-json": (label_studio_json, "label-studio"),
    "label-studio-min": (label_studio_min, "label-studio"),
    "label-studio-csv": (label_studio_csv, "label-studio"),
    "cvat": (cvat, "cvat"),
    "cvat-boxes": (cvat_boxes, "cvat"),
    "datumaro": (datumaro, "datumaro"),
    "fiftyone": (fiftyone, "fiftyone"),
    "fiftyone-samples": (fiftyone_samples, "fiftyone"),
    "open-images": (open_images, "open-images"),
    "voc": (voc, "voc"),
    "voc-sets": (voc_sets, "voc"),
    "voc-xml": (voc_xml, "voc"),
    "paddle": (paddle, "lists"),
    "nus-wide": (nus_wide, "lists"),
    "yolo": (yolo, "yolo"),
    "yolo-roboflow": (yolo_roboflow, "yolo"),
    "yolo-cvat": (yolo_cvat, "yolo"),
}
