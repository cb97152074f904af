"""Corrected copies of tables, in the tables' own forms."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from ltml import InputError
from ltml.data.corrections import LabelTable, read_corrections
from ltml.data.folder import read_label_csv

FORMS = {
    "spaces": "image,labels\na.jpg,cat dog\nb.jpg,dog\nc.jpg,cow\nd.jpg,cat\n",
    "semicolons": "path;tags;width\na.jpg;cat|dog;3\nb.jpg;dog;4\nc.jpg;cow;5\nd.jpg;cat;6\n",
    "quoted commas": 'image,labels\na.jpg,"cat, dog"\nb.jpg,dog\nc.jpg,cow\nd.jpg,cat\n',
    "tabs": "filename\tlabels\na.jpg\tcat;dog\nb.jpg\tdog\nc.jpg\tcow\nd.jpg\tcat\n",
    "names with spaces": "image,labels\na.jpg,big cat;dog\nb.jpg,dog\nc.jpg,cow\nd.jpg,big cat\n",
    "indices": "image,labels\na.jpg,0 2\nb.jpg,2\nc.jpg,1\nd.jpg,0\n",
    "padded indices": "image,labels\na.jpg,00 02\nb.jpg,02\nc.jpg,01\nd.jpg,00\n",
    "json": 'image,labels\na.jpg,"[""cat"", ""dog""]"\nb.jpg,"[""dog""]"\nc.jpg,"[""cow""]"\n'
    'd.jpg,"[""cat""]"\n',
    "python": "image,labels\na.jpg,\"['cat', 'dog']\"\nb.jpg,['dog']\nc.jpg,['cow']\n"
    "d.jpg,['cat']\n",
    "numpy": "image,labels\na.jpg,['cat' 'dog']\nb.jpg,['dog']\nc.jpg,['cow']\nd.jpg,['cat']\n",
    "index lists": 'image,labels\na.jpg,"[0, 2]"\nb.jpg,[2]\nc.jpg,[1]\nd.jpg,[0]\n',
    "rows": "image,label,width\na.jpg,cat,1\na.jpg,dog,2\nb.jpg,dog,3\nc.jpg,cow,4\nd.jpg,cat,5\n",
    "columns": "image,cat,cow,dog\na.jpg,1,0,1\nb.jpg,0,0,1\nc.jpg,0,1,0\nd.jpg,1,0,0\n",
    "true and false": "id,image,cat,cow,dog\n1,a.jpg,True,False,True\n2,b.jpg,False,False,True\n"
    "3,c.jpg,False,True,False\n4,d.jpg,True,False,False\n",
    "floats": "image,cat,cow,dog\na.jpg,1.0,0.0,1.0\nb.jpg,0.0,0.0,1.0\nc.jpg,0.0,1.0,0.0\n"
    "d.jpg,1.0,0.0,0.0\n",
    "windows": "image,labels\r\na.jpg,cat dog\r\nb.jpg,dog\r\nc.jpg,cow\r\nd.jpg,cat\r\n",
    "single labels": "image,labels\na.jpg,cat\nb.jpg,dog\nc.jpg,cow\nd.jpg,cat\n",
    "one without": "image,labels\na.jpg,cat dog\nb.jpg,dog\nc.jpg,\nd.jpg,cat\n",
}


def written(tmp_path, text):
    path = tmp_path / "train.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_correction_round_trips_through_every_form(form, tmp_path):
    """Each label of each image changed in turn, and all labels of one image; the rest stays."""
    path = written(tmp_path, FORMS[form])
    table = LabelTable(path)
    before = table.labels.dense().numpy()
    changes = [(i, {c}) for i in range(4) for c in range(table.labels.num_classes)]
    for number, (i, flipped) in enumerate([*changes, (0, {0, 1}), (3, {0})]):
        wanted = before.copy()
        wanted[i, list(flipped)] ^= 1
        copy = tmp_path / f"{number}.csv"
        table.write(copy, {table.images[i]: wanted[i]})
        options = {"class_names": table.labels.class_names}
        if table.form.kind != "columns" and table.form.mark in ("", " ", ",", "|", ";"):
            options["separator"] = table.form.mark or "none"
        images, labels = read_label_csv(copy, **options)
        assert images == table.images
        assert np.array_equal(labels.dense(), wanted)
        # All other rows are as they were, to the letter.
        theirs = [line for line in path.read_text().splitlines() if table.images[i] not in line]
        ours = [line for line in copy.read_text().splitlines() if table.images[i] not in line]
        assert ours == theirs or form in ("quoted commas", "python")  # which csv quotes anew
    assert path.read_bytes() == FORMS[form].encode()


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_the_table_are_read_as_corrections(form, tmp_path):
    path = written(tmp_path, FORMS[form])
    table = LabelTable(path)
    row = table.labels.dense()[0].numpy() ^ 1
    part = tmp_path / "corrections.csv"
    part.write_text(table.corrected({"a.jpg": row}))
    found = read_corrections(part, table)
    assert np.array_equal(found["a.jpg"], row)


ROWS = {
    "lists": [["a.jpg", ["cat", "dog"], 3], ["b.jpg", ["dog"], 4], ["c.jpg", ["men's cow"], 5]],
    "indices": [["a.jpg", [0, 2], 3], ["b.jpg", [2], 4], ["c.jpg", [1], 5]],
    "cells": [["a.jpg", "cat;dog", 3], ["b.jpg", "dog", 4], ["c.jpg", "men's cow", 5]],
    "rows": [["a.jpg", "cat", 3], ["a.jpg", "dog", 3], ["b.jpg", "dog", 4], ["c.jpg", "cow", 5]],
}
FLAGS = [["a.jpg", 1, 0, 1], ["b.jpg", 0, 0, 1], ["c.jpg", 0, 1, 0]]


def frames():
    for name, rows in ROWS.items():
        yield name, pd.DataFrame(rows, columns=["image", "labels", "width"])
    for kind in (int, float, bool):
        flags = pd.DataFrame(FLAGS, columns=["image", "cat", "cow", "dog"])
        yield kind.__name__, flags.astype(dict.fromkeys(["cat", "cow", "dog"], kind))


SAVED = {
    ".csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    ".tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".tsv.gz": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".ndjson": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".json": lambda frame, path: frame.to_json(path, orient="records"),
    ".xlsx": lambda frame, path: frame.to_excel(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


def needed(ending):
    package = {".xlsx": "openpyxl", ".parquet": "pyarrow"}.get(ending)
    if package is not None:
        pytest.importorskip(package, reason=f"pip install {package}")


@pytest.mark.parametrize(("form", "frame"), [pytest.param(*f, id=f[0]) for f in frames()])
@pytest.mark.parametrize("ending", SAVED)
def test_injected_errors_are_corrected_in_every_file(ending, form, frame, tmp_path):
    """The true table with errors in it is corrected, and reads as the truth; the rest stays."""
    if form in ("lists", "indices") and ending in (".csv.gz", ".tsv", ".tsv.gz", ".xlsx"):
        frame = frame.assign(labels=frame.labels.map(json.dumps))
    needed(ending)
    path = tmp_path / f"train{ending}"
    SAVED[ending](frame, path)
    bytes_before = path.read_bytes()
    table = LabelTable(path)
    truth = table.labels.dense().numpy()
    wrong, names = truth.copy(), table.labels.class_names
    wrong[0, 1] ^= 1
    wrong[1] ^= 1
    damaged, mended = tmp_path / f"wrong{ending}", tmp_path / f"mended{ending}"
    table.write(damaged, dict(zip(table.images, wrong, strict=True)))
    separator = {"cells": ";", "rows": "none"}.get(form)
    again = LabelTable(damaged, names, separator=separator)
    assert np.array_equal(again.labels.dense(), wrong)
    corrections = tmp_path / "corrections.csv"
    with corrections.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.rows[0])
        for image in table.images[:2]:
            writer.writerows(table.cells(image))
    again.write(mended, read_corrections(corrections, again))
    images, labels = read_label_csv(mended, names, separator=separator)
    assert images == table.images
    assert np.array_equal(labels.dense(), truth)
    assert LabelTable(mended, names, separator=separator).rows == table.rows
    assert path.read_bytes() == bytes_before


def test_an_object_of_each_image_and_what_a_workbook_holds_besides_are_kept(tmp_path):
    path, copy = tmp_path / "train.json", tmp_path / "copy.json"
    path.write_text('{"a.jpg": ["cat", "dog"], "b.jpg": ["dog"]}')
    LabelTable(path).write(copy, {"b.jpg": [1, 0]})
    assert json.loads(copy.read_text()) == {"a.jpg": ["cat", "dog"], "b.jpg": ["cat"]}
    needed(".xlsx")
    path, copy = tmp_path / "train.xlsx", tmp_path / "copy.xlsx"
    with pd.ExcelWriter(path) as writer:
        pd.DataFrame(FLAGS, columns=["image", "cat", "cow", "dog"]).to_excel(writer, index=False)
        pd.DataFrame({"note": ["mine"]}).to_excel(writer, sheet_name="notes", index=False)
    LabelTable(path).write(copy, {"b.jpg": [1, 0, 1]})
    assert pd.read_excel(copy, sheet_name="notes").note.tolist() == ["mine"]
    assert pd.read_excel(copy).cat.tolist() == [1, 1, 0]


def test_a_parquet_file_keeps_its_schema(tmp_path):
    needed(".parquet")
    path, copy = tmp_path / "train.parquet", tmp_path / "copy.parquet"
    frame = pd.DataFrame(FLAGS, columns=["image", "cat", "cow", "dog"])
    frame.astype({"cat": "int8", "cow": "bool"}).assign(day=pd.Timestamp(0)).to_parquet(path)
    LabelTable(path).write(copy, {"b.jpg": [1, 1, 0]})
    assert list(pd.read_parquet(copy).dtypes) == list(pd.read_parquet(path).dtypes)
    assert pd.read_parquet(copy).cow.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("ending", "text", "said"),
    [
        (".manifest", '{"image": "a.jpg", "labels": ["cat"]}\n', r"save it as one of \.csv, "),
        (".csv", "image,label_1,label_2\na.jpg,cat,dog\nb.jpg,dog,\n", "which a column of labels"),
    ],
)
def test_what_cannot_be_written_back_says_what_can(ending, text, said, tmp_path):
    (path := tmp_path / f"train{ending}").write_text(text)
    with pytest.raises(InputError, match=said):
        LabelTable(path)


def test_the_copy_is_a_file_of_the_same_kind(tmp_path):
    (path := tmp_path / "train.jsonl").write_text('{"image": "a.jpg", "labels": ["cat"]}\n')
    with pytest.raises(InputError, match=r"must end in \.jsonl"):
        LabelTable(path).write(tmp_path / "copy.csv", {"a.jpg": [0]})


def test_nothing_is_ever_written_over(tmp_path):
    path = written(tmp_path, FORMS["spaces"])
    table = LabelTable(path)
    other = tmp_path / "other.csv"
    other.write_text("mine")
    for place in (path, other):
        with pytest.raises(InputError, match="exists; give another name"):
            table.write(place, {"a.jpg": [1, 0, 0]})
    assert path.read_text() == FORMS["spaces"]
    assert other.read_text() == "mine"


def test_images_that_the_table_lacks_are_named(tmp_path):
    table = LabelTable(written(tmp_path, FORMS["spaces"]))
    with pytest.raises(InputError, match=r"'z\.jpg' is not in .*leave it out"):
        table.corrected({"z.jpg": [1, 0, 0]})
    part = tmp_path / "corrections.csv"
    part.write_text("image,labels\nz.jpg,cat\n")
    with pytest.raises(InputError, match=r"corrections\.csv: image 'z\.jpg' is not in"):
        read_corrections(part, table)


def test_other_columns_and_names_in_quotes_are_kept(tmp_path):
    text = 'note,image,labels\n"a, b",a.jpg,cat dog\n"said ""x""",b.jpg,dog\nc,c.jpg,cat\n'
    table = LabelTable(written(tmp_path, text))
    assert table.corrected({"c.jpg": [1, 1]}) == text.replace("c.jpg,cat", "c.jpg,cat dog")
