"""A page of photos whose labels look wrong, to go through by hand; it needs nothing beside it."""

import base64
import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ltml.core.files import check_replaceable, write_atomically
from ltml.data.corrections import FALSE, TRUE, Form, LabelTable
from ltml.training.suspects import GIVEN, Suspects

_BEGINS = "<title>Suspect labels</title>"
_SIDE = 176  # px, of the longer side


def write_suspects(
    found: Suspects,
    path: str | Path,
    *,
    table: LabelTable | None = None,
    shown: int = 200,
    apply: str = "ltml suspects DATA --apply corrections.csv --out corrected.csv",
) -> Path:
    """Write the page. What is ticked there is saved by the browser as rows of the labels' table.

    Args:
        found: suspects to show.
        path: file to write; only a page of this kind is replaced.
        table: table of the labels, in whose form corrections are saved; default: ``image,labels``.
        shown: the most suspect so many labels of each kind.
        apply: the command that applies corrections, as the page tells it.

    Raises:
        InputError: if ``path`` holds something else.
    """
    check_page(path := Path(path))
    items, images = [], {}
    number = {name: i for i, name in enumerate(found.ids)}
    column = {name: c for c, name in enumerate(found.class_names)}
    if table is None:
        form, delimiter = Form("cell", 0, 1, ";", found.class_names), ","
        header = ["image", "labels"]
    else:
        form, delimiter, header = table.form, table.delimiter, table.rows[0]
    for kind in GIVEN:
        part = found.table(kind, limit=shown)
        for image, name, score in zip(part.image, part["class"], part.score, strict=True):
            i = number[image]
            if i not in images:
                images[i] = _image(found, i, form, table)
            items.append({"kind": kind, "i": i, "c": column[name], "score": round(score, 4)})
    data = {
        "classes": found.class_names,
        "form": {"kind": form.kind, "label": form.label, "mark": form.mark, "words": form.words},
        "delimiter": delimiter,
        "header": header,
        "yes": TRUE,
        "no": FALSE,
        "items": items,
        "images": images,
        "apply": apply,
    }
    # Inside a script element, only < can end it.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    template = (files("ltml.plots") / "page" / "suspects.html").read_text("utf-8")
    page = template.replace("$data", text)
    write_atomically(path, lambda part: part.write_text(page, encoding="utf-8"))
    return path


def check_page(path: Path) -> None:
    """Raise an InputError if a file is there that is no page of this kind."""
    check_replaceable(path, _BEGINS)


def _image(found: Suspects, i: int, form: Form, table: LabelTable | None) -> dict:
    present = np.flatnonzero(found.given[i] == 1).tolist()
    if table is None:
        rows = [[found.ids[i], form.joined(found.given[i] == 1)]]
    else:
        rows = table.cells(found.ids[i])
    src = _thumbnail(found.files[i]) if found.files[i] else ""
    return {"name": found.ids[i], "labels": present, "rows": rows, "src": src}


def _thumbnail(file: str) -> str:
    """A small picture as a data URL; nothing where the file has gone or is damaged."""
    try:
        with Image.open(file) as image:
            image.draft("RGB", (_SIDE, _SIDE))
            image = ImageOps.exif_transpose(image).convert("RGB")
            image.thumbnail((_SIDE, _SIDE))
            out = io.BytesIO()
            image.save(out, "WEBP", quality=60)
    except Exception:  # Pillow raises many kinds over damaged files
        return ""
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
