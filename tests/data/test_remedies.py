"""The remedy of every refusal, applied as it stands, ends in the right labels or at a better question.

A refusal of a reader that none of these cases produces fails the last test.
"""

# ruff: noqa: E501 - what is refused and what its remedy makes of it stand side by side

import ast
import gzip
import io
import json
import re
import tomllib
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from layout_trees import annotation, coco_of, coco_plain, lvis, photo, yolo
from PIL import Image
from reading import ANIMALS, JPG, answers, labels, read_or_error, rows, table, tree, whole

import ltml
from ltml import InputError, LabelMatrix
from ltml.data import load as load_data
from ltml.data import read_plan
from ltml.data.folder import load, read_label_csv
from ltml.data.layouts import Part, Reading, Tree, assemble
from ltml.data.single import find_table
from ltml.data.splits import LongTailData, Split

DATA = Path(ltml.__file__).parent / "data"
READERS = [
    "tables",
    "cells",
    "plan",
    "reader",
    "folder",
    "finder",
    "single",
    "splits",
    "layouts",
    "xml",
    "coco",
    "voc",
]

BETTER = "a better question"
OFFERED = "the options that are offered"
WANT = labels(*ANIMALS)
PLAIN = table("image,labels", lambda i: f"{i},{ANIMALS[i].replace(' ', ';')}")
SINGLE = table("image,labels", lambda i: f"{i},{'ab'[i % 2]}")
AB = labels(*"ababab")
FLAGS = table(
    "image,cat,dog", lambda i: f"{i},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}"
)


class Case(NamedTuple):
    """A refusal, and what its advice is taken to say."""

    advice: str  # words of the message
    files: dict  # path -> text or bytes, or a function that builds the tree
    remedy: object = (
        OFFERED  # or edits of files and options, or a function of the root and the message
    )
    want: object = WANT  # what images hold then, among others; or a better question
    options: dict = {}
    read: object = load


def csv(root, file="train.csv", **options):
    """What a table on its own reads as."""
    images, matrix = read_label_csv(root / file, **options)
    rows = matrix.dense().float().numpy()
    names = matrix.class_names
    return {
        image: {("?" if np.isnan(y) else "") + n for n, y in zip(names, row, strict=True) if y}
        for image, row in zip(images, rows, strict=True)
    }


def large(root, **options):
    """The same by the reader of large tables."""
    with mock.patch("ltml.data.tables._LARGE", 10):
        return csv(root, **options)


def named(name):
    return partial(load_data, name)


def one(file, cells):
    """A table of the labels of images."""
    return {file: table("image,labels", lambda i: f"{i},{cells[i]}")}


def with_plan(**changes):
    """Read by the plan that a table gives, changed."""

    def read(root, **options):
        plan = load(root=root).plan.as_dict() | changes | options
        return load(root=root, plan=plan)

    return read


def parquet(root, *message):
    """Write the table as Parquet."""
    pytest.importorskip("pyarrow")
    pd.read_csv(io.StringIO(SINGLE), dtype=str).to_parquet(root / "train.parquet")
    return {}


def installed(root):
    """The extra that is advised holds the engines."""
    extras = tomllib.loads((DATA.parents[1] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert {"pyarrow", "openpyxl"} <= {
        re.split("[<>=~]", each)[0].strip() for each in extras["tables"]
    }
    return parquet(root) | {"read": csv}


def without_engine(root, file, read=None):
    if read is not None:
        return read(root, file=file)
    with mock.patch("pandas.read_parquet", side_effect=ImportError):
        return csv(root, file=file)


def parquet_of_images(root):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    images = [Image.new("RGB", (8, 8), (i, i, i)) for i in range(4)]
    data = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features)
    data.to_parquet(root / "train.parquet")


def dataset_of(root, message):
    """Load by the code of the message."""
    names = {"datasets": pytest.importorskip("datasets")}
    code = re.search(r"load it by (datasets\.load_dataset\(.*?\)), and", message)[1]
    with mock.patch("datasets.config.HF_DATASETS_CACHE", root / "cache"):
        loaded = eval(code, names)
    return {"file": None, "dataset": loaded["train"]}


def of_dataset(root, file=None, dataset=None):
    if dataset is None:
        return csv(root, file)
    split = ltml.data.from_dataset(dataset)
    return whole(LongTailData("mine", split, split))


GOOD = {"train.csv": PLAIN}
CASES = {
    # --- cells ---
    "a line break in a cell": Case(
        "holds a line break; correct it, and check quotes", {"train.csv": PLAIN.replace("2,cat;dog", '2,"cat\ndog"')},
        {"train.csv": ('"cat\ndog"', "cat;dog")}),
    "text beside lists": Case(
        "'dog' is no list, as other rows have; correct it, and check quotes",
        {"train.csv": table("image,labels", lambda i: f"{i},\"{ANIMALS[i].split()}\"").replace("\"['dog']\"", "dog", 1)},
        {"train.csv": ("1,dog", "1,['dog']")}),
    "text beside lists, which were asked for": Case(
        "is no list, as other rows have; correct it", {"train.csv": table("image,labels", lambda i: f"{i},\"{ANIMALS[i].split()}\"").replace("\"['dog']\"", "dog", 1)},
        {"train.csv": ("1,dog", "1,['dog']")}, options={"separator": "lists"}),
    "a list that is none": Case(
        "is no list as JSON or Python writes it; correct it", {"train.csv": table("image,labels", lambda i: f"{i},\"{ANIMALS[i].split()}\"").replace("['dog']", "[dog'", 1).replace("[dog'", "['dog, x]")},
        {"train.csv": ("['dog, x]", "['dog']")}),
    "vectors that are none": Case(
        "the labels are no vectors of 0 and 1 of one length; leave the separator out", GOOD, {"separator": None}, options={"separator": "vectors"}),
    "-1 beside 0 in vectors": Case(
        "give a column of 0, 1 and -1 for each class", one("train.csv", ["1 0 -1", "0 1 0", "1 1 0", "0 1 0", "1 0 0", "1 1 0"]),
        {"train.csv": "image,cat,dog,cow\n0,1,0,-1\n1,0,1,0\n2,1,1,0\n3,0,1,0\n4,1,0,0\n5,1,1,0\n"}, BETTER),
    "counts in vectors": Case(
        "write 1 for present and 0 for absent", one("train.csv", ["0 0 2", "0 1 0", "1 1 0", "0 0 1", "1 0 0", "1 1 0"]),
        {"train.csv": ("0 0 2", "0 0 1")}, {"0": {"class 2"}, "2": {"class 0", "class 1"}}),
    "indices or vectors": Case(
        "may be indices or 0 and 1; choose with --separator vectors or --separator", one("train.csv", ["0 1", "1 0"] * 3),
        want={"0": {"class 1"}, "1": {"class 0"}}),
    "indices or vectors, in lists": Case(
        "choose with --separator vectors or --separator lists", one("train.csv", ['"[0, 1]"', '"[1, 0]"'] * 3), want={"0": {"class 0", "class 1"}}),
    "two separators": Case(
        "choose with --separator", one("train.csv", ["a b", "b", "a", "x a;b", "a", "b"]), want=BETTER),
    "two separators, and a list of classes": Case(
        "or list the classes in classes.txt", one("train.csv", ["cat", "dog", "cat dog x", "dog", "cat", "x cow"]),
        {"classes.txt": "cat\ndog\nx\ncow\n"}, {"2": {"cat", "dog", "x"}, "5": {"x", "cow"}}),
    "no label at all": Case("holds no label; give some", one("train.csv", [""] * 6), {"train.csv": PLAIN}),
    "a number beside names": Case(
        "is a number beside names; correct it", {"train.csv": PLAIN.replace("1,dog", "1,7")}, {"train.csv": ("1,7", "1,dog")}),
    "a number that is a name": Case(
        "or list all classes in classes.txt", {"train.csv": PLAIN.replace("1,dog", "1,7")}, {"classes.txt": "cat\ndog\n7\n"}, {"1": {"7"}, "3": {"dog"}}),
    "too large an index": Case("too large for an index; correct it", one("train.csv", [0, 1, 123456789] * 2),
        {"train.csv": table("image,labels", lambda i: f"{i},{i % 2}")}, {"0": {"class 0"}}),
    "labels with scores": Case("leave the scores out", one("train.csv", [" ".join(f"{n}:0.9" for n in a.split()) for a in ANIMALS]), one("train.csv", ANIMALS)),
    "labels that end in numbers": Case("or list all classes in classes.txt", one("train.csv", ["a:0.1", "b:0.2"] * 3), {"classes.txt": "a:0.1\nb:0.2"}, {"0": {"a:0.1"}, "1": {"b:0.2"}}),
    "indices from 1": Case("begin classes.txt with a class 0", one("train.csv", ["1", "2", "1 2"] * 2) | {"classes.txt": "cat\ndog"}, {"classes.txt": "none\ncat\ndog"}, {"0": {"cat"}, "2": {"cat", "dog"}}),
    "one column of 0 and 1 beside words": Case("say so, or which columns hold the labels: --class-columns 'service_test', or --label-columns 'animal'",
        {"train.csv": table("file,animal,service_test", lambda i: f"{i}.jpg,{'ab'[i % 2]},{i // 3}")}, want={"1.jpg": {"b"}}),
    "a label that is no class": Case(
        "label 'cta' is none of the 2 classes (did you mean 'cat'?); correct it", {"train.csv": PLAIN.replace("0,cat", "0,cta"), "classes.txt": "cat\ndog"}, {"train.csv": ("cta", "cat")}),
    "a label that is missing from the list": Case(
        "or list all classes in classes.txt", {"train.csv": PLAIN.replace("0,cat", "0,cow"), "classes.txt": "cat\ndog"}, {"classes.txt": "cat\ndog\ncow"}, {"0": {"cow"}, "2": {"cat", "dog"}}),
    "names that are other indices": Case(
        "may be an index too; rename the classes", one("train.csv", "010101") | {"classes.txt": "1\n0"}, {"classes.txt": "one\nzero"}, {"0": {"one"}, "1": {"zero"}}),
    "two spellings": Case(
        "write them alike", {"train.csv": PLAIN.replace("0,cat", "0,Cat")}, {"train.csv": ("Cat", "cat")}),
    "two spellings that are two classes": Case(
        "list both in classes.txt", {"train.csv": PLAIN.replace("0,cat", "0,Cat")}, {"classes.txt": "cat\ndog\nCat"}, {"0": {"Cat"}, "4": {"cat"}}),
    "two spellings of columns": Case(
        "but for case and spaces", {"train.csv": FLAGS.replace("cat,dog", "dog ,Dog").replace("image,dog ", "image,dog")},
        {"train.csv": ("dog,Dog", "cat,dog")}),
    # --- options and plans ---
    "no such option": Case("choose from image_column, label_columns", GOOD, {"column": None, "label_columns": "labels"}, options={"column": "labels"}, read=csv),
    "a number for a column": Case("image_column is 3; give the name of a column", GOOD, {"image_column": "image"}, options={"image_column": 3}),
    "no such way of joining": Case("is none of any, majority and agree", GOOD, {"readers": "any"}, options={"readers": "all"}),
    "no plan": Case("give what as_dict() gave", GOOD, lambda root, _: {"plan": load(root=root).plan.as_dict()}, options={"plan": {}}),
    "no meaning": Case("give such as -1=unknown or blank=0, with 1, 0 or unknown", {"train.csv": FLAGS.replace("0,1,0", "0,1,-1")}, {"values": "-1=unknown"}, {"0": {"cat", "?dog"}}, {"values": "-1"}),
    "no bound": Case("give such as >=0.5=1", {"train.csv": FLAGS}, {"values": ">=0.5=1"}, options={"values": ">=half=1"}),
    "no such column": Case("there is no column 'Image' ('image' but for case and spaces)", GOOD, {"image_column": "image"}, options={"image_column": "Image"}),
    "a frame without columns": Case("holds no image; add a line for each", GOOD, {"frame": pd.DataFrame({"image": ["0"], "labels": ["cat"]})},
        {}, {"frame": pd.DataFrame()}, lambda root, frame: {} if read_plan(frame) else None),
    "a plan of another table": Case("plan.image: there is no column 'photo'", GOOD, {"image": "image"}, options={"image": "photo"}, read=with_plan()),
    "a plan without labels": Case("the plan names no column of labels and none of classes; give some", GOOD, {"labels": {"labels": ";"}}, options={"labels": {}}, read=with_plan()),
    # --- columns ---
    "no column of images": Case("none is known to name images; say which: --image-column 'a'", {"train.csv": table("a,labels,c", lambda i: f"q{i},{ANIMALS[i].replace(' ', ';')},z{i}").replace("q", "photos/x")}, {"train.csv": PLAIN}, WANT),
    "a column of images by another name": Case("say which: --image-column 'a' or --image-column 'c'", {"train.csv": table("a,c,labels", lambda i: f"x{i},z{i},{ANIMALS[i].replace(' ', ';')}")}, want=BETTER),
    "two columns of images": Case("say which names the image: --image-column 'image'", {"train.csv": table("image,photo,labels", lambda i: f"{i},{5 - i},{ANIMALS[i].replace(' ', ';')}")}),
    "two columns of the split": Case("may both name the split; say which: --split-column", {"train.csv": table("image,labels,split,phase", lambda i: f"{i},{ANIMALS[i].replace(' ', ';')},{['train', 'test'][i > 3]},{['train', 'test'][i % 2]}")}),
    "0 and 1 of boxes alone": Case("'occluded' and 'truncated' of 0 and 1 are no classes; drop or rename them", {"train.csv": FLAGS.replace("cat,dog", "occluded,truncated")}, {"train.csv": ("occluded,truncated", "cat,dog")}),
    "0 and 1 of boxes beside classes": Case("or say --ignore 'occluded'", {"train.csv": table("image,cat,dog,occluded", lambda i: f"{FLAGS.splitlines()[i + 1]},{i % 2}")}),
    "numbers that are no labels": Case("call their column labels", {"train.csv": table("image,temperature", lambda i: f"{i},{100 + i}")}, {"train.csv": SINGLE}, AB),
    # --- values and rows ---
    "a negative class that is none": Case("negative_class 'none of them' is no class; there are `cat`, `dog`", GOOD, {"negative_class": None}, options={"negative_class": "none of them"}),
    "a negative class alone": Case("'a' is the only class; give others", {"train.csv": SINGLE.replace(",b", ",a")}, {"train.csv": SINGLE}, {"1": {"b"}}, {"negative_class": "a"}),
    "a class without a column": Case("class 'cow' has no column; add it", {"train.csv": FLAGS, "classes.txt": "cat\ndog\ncow"}, {"train.csv": table("image,cat,dog,cow", lambda i: f"{FLAGS.splitlines()[i + 1]},0")}),
    "a column that is no class": Case("drop or rename it, or say --ignore 'cow'", {"train.csv": table("image,cat,dog,cow", lambda i: f"{FLAGS.splitlines()[i + 1]},0"), "classes.txt": "cat\ndog"}),
    "a value that is neither 0 nor 1": Case("neither 0 nor 1; correct it", {"train.csv": FLAGS.replace("1,0,1", "1,x,1")}, {"train.csv": ("1,x,1", "1,0,1")}),
    "a value that means something": Case("or say what it means: --values 'x=unknown', or leave it out: --ignore 'cat'", {"train.csv": FLAGS.replace("1,0,1", "1,x,1")}, want={"1": {"?cat", "dog"}}),
    "a value that says yes": Case("--values '255=1' or --values '255=unknown'", {"train.csv": re.sub(r",1", ",255", FLAGS)}, {"values": "255=1"}, options={"class_columns": ["cat", "dog"]}),
    "an image on two lines": Case("--readers any or --readers majority or --readers agree", {"train.csv": FLAGS + "0,0,1\n"}, want={"0": {"?cat", "?dog"}}),
    "an image on two lines, one kept": Case("keep one row, or say", {"train.csv": FLAGS + "0,0,1\n"}, {"train.csv": FLAGS}),
    "a class for each image": Case("say which column holds the labels (--label-columns)", lambda root: tree(root, {"train.csv": table("image,label,kind", lambda i: f"{i},n{i},{'ab'[i % 2]}", 24)}, [f"photos/{i}.jpg" for i in range(24)]),
        {"label_columns": "kind"}, AB),
    "vectors and names": Case("; choose one: --label-columns 'labels' or --label-columns 'target'",
        {"train.csv": table("image,labels,target", lambda i: f"{i},\"{ANIMALS[i].split()}\",\"[{int('cat' in ANIMALS[i])}, {int('dog' in ANIMALS[i])}, 0]\"")}, options={"label_columns": ["labels", "target"]}),
    "lists on two lines": Case("keep one row; or", {"train.csv": PLAIN + "0,dog;cat\n"}, {"train.csv": PLAIN}),
    "lists on two lines, joined": Case("--readers any", {"train.csv": PLAIN + "0,dog;cat\n"}, want={"0": {"cat", "dog"}}),
    "held and lacked": Case("keep one row, or say how rows are joined: --readers any or --readers agree",
        {"train.csv": rows("image,label,value", *(f"{i},{n},{int(n in ANIMALS[i])}" for i in range(6) for n in ("cat", "dog")), "0,cat,0")}),
    # --- tables ---
    "a pickle": Case("is of a kind that is not read; save it as .csv", lambda root: pd.DataFrame({"image": range(6), "labels": list("ababab")}).to_pickle(root / "train.pkl"),
        lambda root, _: pd.read_pickle(root / "train.pkl").to_csv(root / "train.csv", index=False) or {"file": "train.csv"}, AB, {"file": "train.pkl"}, csv),
    "two columns of one name": Case("two columns have the same name; rename one", {"train.csv": FLAGS.replace("dog", "cat", 1)}, {"train.csv": FLAGS}),
    "a table without columns": Case("holds no image; add a line for each", {"train.jsonl": "\n"}, {"train.jsonl": "".join(json.dumps({"image": f"{i}", "labels": ANIMALS[i].split()}) + "\n" for i in range(6))}),
    "no pandas engine": Case("install it with: python -m pip install 'ltml[tables]'", lambda root: (root / "train.parquet").write_bytes(b"x"), lambda root, _: installed(root), AB,
        {"file": "train.parquet"}, without_engine),
    "a file that is not there": Case("train.parquet is missing", {}, parquet, AB, {"file": "train.parquet"}, csv),
    "a damaged file": Case("cannot be read as parquet: ", {"train.parquet": b"damaged"}, parquet, AB, {"file": "train.parquet"}, csv),
    "images in a table": Case("give a split of that to ltml.data.from_dataset", parquet_of_images, dataset_of, {"0": {"cat"}, "1": {"dog"}}, {"file": "train.parquet"}, of_dataset),
    "a line that is not JSON": Case("line 2 is not JSON", {"train.jsonl": '{"image": "0", "labels": ["cat"]}\n{"image": "1"\n'}, {"train.jsonl": ('{"image": "1"', '{"image": "1", "labels": ["dog"]}')}, {"1": {"dog"}}, {"file": "train.jsonl"}, csv),
    "a line without columns": Case("line 2: a list is no object of columns", {"train.jsonl": '{"image": "0", "labels": ["cat"]}\n["1", "dog"]\n'}, {"train.jsonl": ('["1", "dog"]', '{"image": "1", "labels": ["dog"]}')}, {"1": {"dog"}}, {"file": "train.jsonl"}, csv),
    "JSON of another form": Case('is no list of objects such as [{"image": "1.jpg", "labels": ["cat"]}]', {"train.json": "[1, 2]"}, {"train.json": '[{"image": "1.jpg", "labels": ["cat"]}]'}, {"1.jpg": {"cat"}}, {"file": "train.json"}, csv),
    "compressed, and not there": Case("train.csv.gz is missing", {}, {"train.csv.gz": gzip.compress(PLAIN.encode())}, options={"file": "train.csv.gz"}, read=csv),
    "compressed in another encoding": Case("is not UTF-8 text: byte 21; save it as UTF-8", {"train.csv.gz": gzip.compress("image,labels\n0,cat\n1,é\n".encode("latin-1"))}, {"train.csv.gz": gzip.compress("image,labels\n0,cat\n1,é\n".encode())}, {"1": {"é"}}, {"file": "train.csv.gz"}, csv),
    "compressed and cut": Case("cannot be read as gzip", {"train.csv.gz": gzip.compress(PLAIN.encode())[:-9]}, {"train.csv.gz": gzip.compress(PLAIN.encode())}, options={"file": "train.csv.gz"}, read=csv),
    "a quote that does not end": Case("line 3 is not CSV", {"train.csv": 'image,labels\n0,cat\n1,"dog"s\n'}, {"train.csv": PLAIN}),
    "a separator in a cell": Case("put a cell that holds ',' in double quotes", {"train.csv": PLAIN.replace("2,cat;dog", "2,cat,dog").replace("5,cat;dog", "5,cat")}, {"train.csv": ("2,cat,dog", '2,"cat,dog"')}, {"2": {"cat", "dog"}}),
    "a counted list with a slip": Case("line 4: there are not 3 columns, as in line 3", {"list.txt": "2\nimage a b\n0.jpg 1 -1\n1.jpg 1\n"}, {"list.txt": ("1.jpg 1", "1.jpg 1 -1")}, {"1.jpg": {"a"}}, {"file": "list.txt"}, csv),
    "a counted list without a name": Case("line 2: there are 5 names of 3 columns", {"list.txt": "2\na b c d e\n0.jpg 1 -1\n1.jpg 1 -1\n"}, {"list.txt": ("a b c d e", "a b")}, {"1.jpg": {"a"}}, {"file": "list.txt"}, csv),
    "an empty table": Case("begin with a line such as image,labels", {"train.csv": "\n\n"}, {"train.csv": "image,labels\n"}, BETTER),
    "a large table that is not CSV": Case("cannot be read", {"train.csv": 'image,labels\n0,cat\n1,"dog\n'}, {"train.csv": PLAIN}, read=large),
    "a large table in another encoding": Case("save it as UTF-8", {"train.csv": "image,labels\n0,cat\n1,é\n".encode("latin-1")}, {"train.csv": "image,labels\n0,cat\n1,é\n"}, {"1": {"é"}}, read=large),
    "a large table with too long a line": Case("cannot be read", {"train.csv": SINGLE + "6,a,b,c\n"}, {"train.csv": SINGLE}, AB, read=large),
    # --- images ---
    "a pattern without a place": Case("give one such as 'train/{}.jpg'", GOOD, {"image_pattern": "photos/{}.jpg"}, options={"image_pattern": "photos"}),
    "images by a part of their name": Case("say which is meant by --image-pattern", lambda root: tree(root, GOOD, [f"two/{i}_{side}.jpg" for i in range(6) for side in ("left", "right")]) and [p.unlink() for p in root.glob("photos/*.jpg")]),
    "images that are not there": Case("correct the names", {"train.csv": PLAIN.replace("0,cat", "x0,cat")}, {"train.csv": ("x0,cat", "0,cat")}),
    "images that are to be added": Case("add the files", {"train.csv": PLAIN.replace("0,cat", "x0,cat")}, {"photos/x0.jpg": ""}, {"x0": {"cat"}}),
    "rows without images": Case("or drop the rows", {"train.csv": PLAIN + "x,cow\n"}, {"train.csv": PLAIN}),
    "two files of one stem": Case("say which is meant by --image-pattern", lambda root: tree(root, GOOD, [f"photos/{i}.png" for i in range(6)])),
    "two files of one name": Case("write its path", lambda root: tree(root, {"train.csv": PLAIN.replace("0,cat", "0.0,cat")}, ["other/0.jpg"]), {"train.csv": ("0.0,cat", "photos/0.jpg,cat")}, {"photos/0.jpg": {"cat"}}),
    "two names of one file": Case("write their paths from the root", {"train.csv": PLAIN + "00,cat\n"}, lambda root, _: tree(root, {"train.csv": PLAIN + "more/00.jpg,cat\n"}, ["more/00.jpg"]) and {"train.csv": PLAIN.replace("\n0,", "\nphotos/0.jpg,") + "more/00.jpg,cat\n"}, {"more/00.jpg": {"cat"}}),
    "a row without an image": Case("give its path, and check quotes", {"train.csv": PLAIN.replace("0,cat", ",cat")}, {"train.csv": PLAIN}),
    # --- folders of tables ---
    "no table of the split": Case("name one by --train-split", {"mine.csv": PLAIN, "yours.csv": PLAIN}, {"train_split": "mine"}),
    "images in one table and labels in another": Case("name one by --train-split, or join two: --train-split splits.csv --join labels.csv",
        {"labels.csv": table("study,cat,dog", lambda i: f"s{FLAGS.splitlines()[i + 1]}"), "views.csv": table("dicom_id,study,rows", lambda i: f"{i},s{i},9"), "splits.csv": table("dicom_id,study,split", lambda i: f"{i},s{i},{['train', 'test'][i > 3]}")},
        lambda root, message: dict(zip(("train_split", "join"), re.search("--train-split (.*) --join (.*)", message).groups(), strict=True))),
    "numbered regions beside classes": Case("or say --ignore 'region_id'", {"train.csv": table("image,cat,dog,region_id", lambda i: f"{FLAGS.splitlines()[i + 1]},{i % 2}")}),
    "no table at all": Case("write it, with the columns image,labels", {}, {"train.csv": PLAIN}),
    "no table to test on": Case("name one by --test-split, or hold out training images to test on by --test-fraction 0.2", GOOD, options={"test_split": "nowhere"}),
    "nothing in common": Case("rename one", GOOD | {"more.csv": "file,weather\n" + "".join(f"{i},sun\n" for i in range(6))}, {"more.csv": ("file,", "image,")}, options={"join": "more.csv"}),
    "a key twice": Case("is there already; keep one row of each", GOOD | {"more.csv": "image,weather\n" + "".join(f"{i % 5},sun{i}\n" for i in range(6))}, {"more.csv": "image,weather\n" + "".join(f"{i},sun\n" for i in range(6))}, options={"join": "more.csv"}),
    "rows that are not joined": Case("add it, or drop the rows", GOOD | {"more.csv": "image,weather\n" + "".join(f"{i},sun\n" for i in range(5))}, {"more.csv": "image,weather\n" + "".join(f"{i},sun\n" for i in range(6))}, options={"join": "more.csv"}),
    "a test table without labels": Case("hold out training images to test on: --test-fraction 0.2", {"train.csv": SINGLE, "test.csv": "image\n7\n"}, want=AB),
    "a test table whose labels were left out": Case("add them", {"train.csv": SINGLE.replace("5,b\n", ""), "test.csv": "image\n5\n"}, {"test.csv": "image,labels\n5,b\n"}, AB),
    "no way to split": Case("or hold some out by --test-fraction 0.2", {"labels.csv": PLAIN}, options={"test_split": "test"}),
    "no way to split, but lists": Case("write lists of images train_list.txt and test_list.txt", {"labels.csv": PLAIN}, {"train_list.txt": "0\n1\n2\n3\n", "test_list.txt": "4\n5\n"}, options={"test_split": "test"}),
    "no image to test on": Case("name another by --test-split, or give --test-fraction 0.2", {"labels.csv": table("image,labels,split", lambda i: f"{i},{ANIMALS[i].replace(' ', ';')},train")}, options={"test_split": "test"}),
    "a plan of no split": Case("choose from 'image' and 'labels', or None", {"labels.csv": PLAIN}, {"split": None}, options={"split": "fold"}, read=with_plan()),
    "an image in two splits": Case("1 images are in two splits by column 'split', such as '0'; keep each in one", {"labels.csv": table("image,labels,split", lambda i: f"{i},{ANIMALS[i].split()[0]},{['train', 'test'][i > 3]}") + "0,dog,test\n"},
        {"labels.csv": ("0,dog,test\n", "")}, {"0": {"cat"}}, {"separator": "none"}),
    "folds": Case("say which to test on, such as --test-split '0'", {"train.csv": table("image,labels,fold", lambda i: f"{i},{'ab'[i // 3]},{i % 3}")}, want={"0": {"a"}}),
    "an image in two lists": Case("1 images are in two lists of test_list.txt, train_list.txt, such as '3'; keep each in one", {"labels.csv": PLAIN, "train_list.txt": "0\n1\n2\n3\n", "test_list.txt": "3\n4\n5\n"}, {"test_list.txt": "4\n5\n"}),
    "several tables of a split": Case("name one, such as train/a.csv", {"train/a.csv": PLAIN, "train/b.csv": PLAIN}, {"train_split": "train/a.csv"}),
    "no table of a split alone": Case("there are mine.csv: give one of them", {"mine.csv": PLAIN}, {"split": "mine.csv"}, options={"split": "train"}, read=lambda root, split: csv(root, find_table(root, split).name)),
    # --- splits ---
    "images and labels that are not as many": Case("give one each", {}, {"ids": ["0"]}, {"0": {"cat"}}, {"ids": []}, lambda root, ids: whole(LongTailData("mine", *[Split(["0.jpg"], LabelMatrix([[1]], ["cat"]), ids)] * 2))),
    "splits of other classes": Case("make them the same", {}, {"names": ["cat"]}, {"0": {"cat"}}, {"names": ["dog"]},
        lambda root, names: whole(LongTailData("mine", *(Split(["0.jpg"], LabelMatrix([[1]], n), ["0"]) for n in (["cat"], names))))),
    "a split without labels": Case("check the split's name and the class list", {"train.csv": PLAIN.replace("5,cat;dog\n", ""), "test.csv": "image,labels\n5,\n"}, {"test.csv": "image,labels\n5,cat;dog\n"}),
}  # fmt: skip


# --- layouts, COCO and VOC ---------------------------------------------------------------------


def inside(name):
    """Load a data set from a folder below the root."""
    return lambda root, inside=".", **options: load_data(name, root=root / inside, **options)


def steps(*functions):
    """Do several things to the tree; what the last returns is returned."""

    def run(root, *message):
        return [function(root) for function in functions][-1] or {}

    return run


def changed(file, change):
    """Change a JSON file in place."""

    def run(root, *message):
        content = json.loads((root / file).read_text())
        change(content)
        (root / file).write_text(json.dumps(content))
        return {}

    return run


def written(files):
    """Apply edits of files."""
    return lambda root, *message: edit(root, files)


COCO, VAL = "annotations/photos-train.json", "annotations/photos-val.json"
TWO = {"train/a2.jpg": {"cat", "dog"}, "train/a3.jpg": set()}


def coco_case(advice, wrong, right, want=TWO, **more):
    """A COCO file that is changed, and changed back by what is advised."""
    right = changed(COCO, right) if callable(right) else right
    return Case(
        advice, steps(coco_plain, changed(COCO, wrong)), right, want, read=named("coco"), **more
    )


def entry(key, number, **fields):
    """Set, or with None remove, fields of an entry."""

    def change(content):
        content[key][number].update(fields)
        for name in [name for name, value in fields.items() if value is None]:
            del content[key][number][name]

    return change


def coco_lt(root, lines="1\n2\n"):
    for split in ("train", "val"):
        edit(root, {f"annotations/instances_{split}2017.json": json.dumps(coco_of(split))})
        for name in coco_of(split)["images"]:
            photo(root / f"{split}2017" / name["file_name"])
    edit(root, {"longtail2017/img_id.txt": lines})


def small_voc(root, tree="mine", first=1):
    """A tree of two images to train on and one to test on."""
    for number, names in enumerate((["cat"], ["cat", "dog"], ["dog"]), first):
        edit(root, {f"{tree}/Annotations/{number}.xml": annotation(names)})
        photo(root / tree / f"JPEGImages/{number}.jpg")
    sets = {"train": f"{first}\n{first + 1}\n", "test": f"{first + 2}\n"}
    edit(root, {f"{tree}/ImageSets/Main/{name}.txt": text for name, text in sets.items()})


def voc_lt(root):
    small_voc(root, "VOC2012")
    small_voc(root, "VOC2007", 7)
    edit(root, {"img_id.txt": "1\n2\n"})


def class_sets(root):
    """A tree without annotations: 1 for present and -1 for absent."""
    for name in "123":
        photo(root / f"mine/JPEGImages/{name}.jpg")
    sets = {
        "train": "1\n2\n",
        "test": "3\n",
        "cat_train": "1 1\n2 1\n",
        "dog_train": "1 -1\n2 1\n",
        "cat_test": "3 -1\n",
        "dog_test": "3 1\n",
    }
    edit(root, {f"mine/ImageSets/Main/{name}.txt": text for name, text in sets.items()})


def assembled(root, classes=None, labels=ANIMALS, **options):
    """What a layout's reader may find."""
    parts = {"train": Part(root / "labels", JPG, [cell.split() for cell in labels])}
    return assemble("mine", Reading("mine", parts, classes), Tree(root), **options)


VOC = {"2": {"cat", "dog"}, "3": {"dog"}}
CASES |= {
    # --- splits of layouts ---
    "a split that is not there": Case("did you mean 'train'?", coco_plain, {"train_split": "train"}, TWO, {"train_split": "Train"}, named("coco")),
    "two training splits": Case("that may be the train split: train, train2014; choose with --train-split", steps(coco_plain, lambda root: edit(root, {"annotations/photos_train2014.json": (root / COCO).read_text()})),
        {"train_split": "train2014"}, {"train2014/a2.jpg": {"cat", "dog"}}, read=named("coco")),
    "a lone split to validate on": Case("train on a part of it and test on the rest with --train-split val", steps(coco_plain, written({COCO: None, "annotations/photos-test.json": None}), changed(VAL, lambda d: d.update(coco_of("train")))),
        want={"val/a2.jpg": {"cat", "dog"}}, read=named("coco")),
    "splits without a role": Case("choose with --train-split and --test-split", steps(coco_plain, written({VAL: None, "annotations/photos-test.json": None}),
        lambda root: [edit(root, {f"annotations/{name}.json": (root / COCO).read_text()}) for name in ("north",)], written({COCO: None}), lambda root: edit(root, {"annotations/south.json": json.dumps(coco_of("val"))})),
        {"train_split": "north", "test_split": "south"}, {"north/a2.jpg": {"cat", "dog"}}, read=named("coco")),
    "no split to test on": Case("choose the one to test on with --test-split", steps(coco_plain, written({VAL: None, "annotations/photos-test.json": None}), lambda root: edit(root, {"annotations/south.json": json.dumps(coco_of("val"))})),
        {"test_split": "south"}, TWO, read=named("coco")),
    "a layout without a label": Case("holds no label; give some", {}, {"labels": ANIMALS}, {"photos/2.jpg": {"cat", "dog"}}, {"labels": [""] * 6}, assembled),
    "too few to hold out": Case("label more, or give a split to test on", steps(coco_plain, written({VAL: None, "annotations/photos-test.json": None}), changed(COCO, lambda d: d.update(annotations=d["annotations"][:1], images=d["images"][:2]))),
        changed(COCO, lambda d: d.update(coco_of("train"))), TWO, read=named("coco")),
    "too few to hold out, and others to test on": Case("give a split to test on", steps(coco_plain, written({VAL: None, "annotations/photos-test.json": None}), changed(COCO, lambda d: d.update(annotations=d["annotations"][:1], images=d["images"][:2]))),
        lambda root, _: edit(root, {"annotations/photos-test.json": json.dumps(coco_of("test"))}), {"train/a1.jpg": {"cat"}}, read=named("coco")),
    "a label that is none of the listed": Case("correct it, or add it", {}, {"classes": ["cat", "dog"]}, {"photos/2.jpg": {"cat", "dog"}}, {"classes": ["cat"]}, assembled),
    "a photo in two splits": Case("1 image is in both splits 'train' and 'test', such as 'a1.jpg'; leave them out of one", steps(coco_plain, changed("annotations/photos-test.json", lambda d: d["images"].append({"id": 9, "file_name": "a1.jpg"}))),
        changed("annotations/photos-test.json", lambda d: d["images"].pop()), TWO, read=named("coco")),
    "images in another folder": Case("give the folder that holds both as root", steps(lambda root: coco_plain(root / "labels"), lambda root: (root / "labels/photos").rename(root / "jpegs")), {"inside": "."}, TWO, {"inside": "labels"}, inside("coco")),
    "an image whose file is missing": Case("add it, or leave such images out with --data-options missing=skip", steps(coco_plain, written({"photos/a1.jpg": None})), want=TWO, read=named("coco")),
    "an image whose file is added": Case("is missing; add it", steps(coco_plain, written({"photos/a1.jpg": None})), lambda root, _: photo(root / "photos/a1.jpg") or {}, TWO | {"train/a1.jpg": {"cat"}}, read=named("coco")),
    "two layouts": Case("choose one of --data", steps(small_voc, yolo), lambda root, message: {"name": re.search(r"--data (voc)\b", message)[1]}, VOC, {"name": "auto"}, lambda root, name: load_data(name, root=root)),
    "a layout one folder down": Case("give that as root: --root", lambda root: [photo(root / f"inner/{split}/{name}/{split}{name}.jpg") for split in ("train", "test") for name in ("cat", "dog")] and [path.unlink() for path in root.glob("photos/*")],
        lambda root, message: {"inside": str(Path(re.search(r"--root (.+)$", message)[1]).relative_to(root))}, {"train/cat/traincat.jpg": {"cat"}}, {"inside": "."}, inside("auto")),
    # --- COCO ---
    "no instances file": Case("give the folder of COCO as root", steps(lambda root: coco_plain(root / "coco"), lambda root: (root / "images").mkdir()), {"inside": "coco"}, TWO, {"inside": "images"}, inside("coco")),
    "no such category": Case("has no category 'cow'; choose classes from its own", coco_plain, {"classes": ["cat", "dog"]}, TWO, {"classes": ["cow"]}, named("coco")),
    "a file that is no instances file": Case("it has no list 'categories'; add it", steps(coco_plain, lambda root: (root / COCO).rename(root / "annotations/instances_train.json"), changed("annotations/instances_train.json", lambda d: d.pop("categories"))),
        changed("annotations/instances_train.json", lambda d: d.update(categories=coco_of("train")["categories"])), TWO, read=named("coco")),
    "an id that is no number": coco_case("has id 1.5; give int", entry("images", 0, id=1.5), entry("images", 0, id=1)),
    "an id twice": coco_case("as images[0] has; give each its own", entry("images", 1, id=1), entry("images", 1, id=2)),
    "an annotation of nothing": coco_case("list them, or leave the annotation out", entry("annotations", 0, image_id=99), lambda d: d["annotations"].pop(0)),
    "an annotation of an image that is added": coco_case("list them, or leave the annotation out", lambda d: d["annotations"].append({"image_id": 99, "category_id": 1}), lambda d: d["images"].append({"id": 99, "file_name": "0.jpg"}), TWO | {"train/0.jpg": {"cat"}}),
    "a box that is none": coco_case("correct it, or leave it out", entry("annotations", 0, bbox=[1, 2]), entry("annotations", 0, bbox=None)),
    "an image without a name": coco_case("has neither file_name nor coco_url; give one", entry("images", 1, file_name=None), entry("images", 1, coco_url="http://x.org/photos/a2.jpg"), {"train/photos/a2.jpg": {"cat", "dog"}}),
    "no list of absent categories": Case("is no list of categories' ids; give one", steps(lvis, changed("lvis_v1_train.json", entry("images", 0, neg_category_ids=7))), changed("lvis_v1_train.json", entry("images", 0, neg_category_ids=[2])), {"train/train2017/a1.jpg": {"cat", "?traffic light"}}, read=named("lvis")),
    "absent and annotated": Case("that is among its neg_category_ids; remove one of them", steps(lvis, changed("lvis_v1_train.json", entry("images", 0, neg_category_ids=[1]))), changed("lvis_v1_train.json", entry("images", 0, neg_category_ids=[])), {"train/train2017/a1.jpg": {"cat", "?dog", "?traffic light"}}, read=named("lvis")),
    "no such split of COCO-LT": Case("there are train2017, val2017", coco_lt, {"test_split": "val2017"}, {"train2017/a2.jpg": {"cat", "dog"}}, {"test_split": "val2018"}, named("coco-lt")),
    "an id that is not in COCO": Case("is not in the instances file; correct the list", lambda root: coco_lt(root, "1\n99\n"), {"longtail2017/img_id.txt": ("99", "2")}, {"train2017/a2.jpg": {"cat", "dog"}}, read=named("coco-lt")),
    "a file of COCO-LT that is missing": Case("is missing; add it", steps(coco_lt, written({"train2017/a2.jpg": None})), lambda root, _: photo(root / "train2017/a2.jpg") or {}, {"train2017/a2.jpg": {"cat", "dog"}}, read=named("coco-lt")),
    "a line that is no id": Case("is no image of train2017, such as 554625", lambda root: coco_lt(root, "1\nmine.png\n"), {"longtail2017/img_id.txt": ("mine.png", "2")}, {"train2017/a2.jpg": {"cat", "dog"}}, read=named("coco-lt")),
    "an id on two lines": Case("is on an earlier line too; keep one", lambda root: coco_lt(root, "1\n2\n0001\n"), {"longtail2017/img_id.txt": ("0001\n", "")}, {"train2017/a2.jpg": {"cat", "dog"}}, read=named("coco-lt")),
    "no list of ids": Case("put it at", steps(coco_lt, written({"longtail2017/img_id.txt": None})), lambda root, message: Path(re.search("put it at (.*) or give", message)[1]).write_text("1\n2\n") and {}, {"train2017/a2.jpg": {"cat", "dog"}}, read=named("coco-lt")),
    # --- VOC ---
    "no annotation in a tree": Case("add Annotations/*.xml", {"mine/Annotations/1.xml": "<x/>"}, steps(small_voc), VOC, read=named("voc")),
    "no object in any": Case("no image holds an object; annotate some", steps(small_voc, lambda root: edit(root, {f"mine/Annotations/{i}.xml": annotation([]) for i in (1, 2, 3)})), steps(small_voc), VOC, read=named("voc")),
    "neither annotations nor sets": Case("add one or the other", {"mine/ImageSets/Main/train.txt": "1\n2\n", "mine/ImageSets/Main/test.txt": "3\n"}, steps(class_sets), VOC, read=named("voc")),
    "a set with another flag": Case("with 1, -1 or 0; correct it", steps(class_sets, written({"mine/ImageSets/Main/dog_train.txt": ("2 1", "2 2")})), {"mine/ImageSets/Main/dog_train.txt": ("2 2", "2 1")}, VOC, read=named("voc")),
    "a class that is not VOC's": Case("take all that are found with --data-options classes=found", lambda root: [small_voc(root, "VOC2012"), edit(root, {"VOC2012/Annotations/1.xml": annotation(["helmet"])})], want={"1": {"helmet"}, "2": {"cat", "dog"}}, read=named("voc")),
    "no VOC2012": Case("add it, or give the folder that holds it", lambda root: [voc_lt(root / "whole"), small_voc(root / "part", "VOC2007")], {"inside": "whole"}, {"2": {"cat", "dog"}}, {"inside": "part"}, inside("voc-lt")),
    "no tree": Case("give the VOCdevkit folder", lambda root: voc_lt(root / "VOCdevkit") or (root / "other").mkdir(), {"inside": "VOCdevkit"}, {"2": {"cat", "dog"}}, {"inside": "other"}, inside("voc-lt")),
    "a set in two trees": Case("is in 2 trees", lambda root: [small_voc(root, "VOC2007"), small_voc(root, "VOC2012")], lambda root, message: {"train_split": "VOC2007/train", "test_split": "VOC2012/test"} if "give one of VOC2007/test, VOC2007/train" in message else {}, VOC, read=named("voc")),
    "an image that is not annotated": Case("add it, or leave the image out", steps(small_voc, written({"mine/Annotations/1.xml": None})), {"mine/ImageSets/Main/train.txt": ("1\n", "")}, VOC, read=named("voc")),
    "an image that is annotated twice": Case("keep it in one of them", steps(voc_lt, lambda root: edit(root, {"VOC2007/Annotations/1.xml": annotation(["dog"])})), {"VOC2007/Annotations/1.xml": None}, {"1": {"cat"}}, read=named("voc-lt")),
    "an image of VOC-LT without a file": Case("add or remove it", steps(voc_lt, written({"VOC2012/JPEGImages/2.jpg": None})), lambda root, _: photo(root / "VOC2012/JPEGImages/2.jpg") or {}, {"2": {"cat", "dog"}}, read=named("voc-lt")),
    "a class that is not VOC-LT's": Case("correct it", steps(voc_lt, written({"VOC2012/Annotations/1.xml": annotation(["helmet"])})), {"VOC2012/Annotations/1.xml": ("helmet", "cat")}, {"2": {"cat", "dog"}}, read=named("voc-lt")),
    "objects in another place": Case("put them there", steps(small_voc, written({"mine/Annotations/1.xml": "<annotation><a><object><name>cat</name></object></a></annotation>"})), {"mine/Annotations/1.xml": "<annotation><object><name>cat</name></object></annotation>"}, VOC | {"1": {"cat"}}, read=named("voc")),
    "an object without a name": Case("has no single plain <name>; give it one", steps(small_voc, written({"mine/Annotations/1.xml": "<annotation><object/></annotation>"})), {"mine/Annotations/1.xml": ("<object/>", "<object><name>cat</name></object>")}, VOC | {"1": {"cat"}}, read=named("voc")),
    "XML with a document type": Case("remove the declaration", steps(small_voc, written({"mine/Annotations/1.xml": "<!DOCTYPE annotation>" + annotation(["cat"])})), {"mine/Annotations/1.xml": ("<!DOCTYPE annotation>", "")}, VOC | {"1": {"cat"}}, read=named("voc")),
    "XML that is cut": Case("is not well-formed XML", steps(small_voc, written({"mine/Annotations/1.xml": annotation(["cat"])[:-4]})), {"mine/Annotations/1.xml": annotation(["cat"])}, VOC | {"1": {"cat"}}, read=named("voc")),
}  # fmt: skip


def edit(root: Path, changes: dict) -> dict:
    """Apply edits of files: a new text, (old, new) in it, or None to remove it; returns the rest."""
    options = {}
    for name, change in changes.items():
        path = root / name
        if not ("." in name or "/" in name) or name in ("data", "root"):
            options[name] = change
        elif change is None:
            path.unlink()
        elif isinstance(change, tuple):
            old, new = change
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new, 1))
        elif isinstance(change, bytes):
            path.write_bytes(change)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(change)
    return options


def build(root: Path, case: Case) -> Path:
    root = tree(root / "photos of mine", {}, JPG)
    if callable(case.files):
        case.files(root)
    else:
        edit(root, case.files)
    return root


def asked(case: Case, root: Path, **more) -> InputError:
    with pytest.raises(InputError) as caught:
        case.read(root=root, **{**case.options, **more})
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", CASES)
def test_the_remedy_works_as_it_stands(tmp_path, name):
    case = CASES[name]
    root = build(tmp_path, case)
    message = str(asked(case, root))
    assert case.advice in message
    if case.remedy is OFFERED:
        offered = answers(message)
        assert offered
        tried = [attempt(case, root, flat(options)) for options in offered]
        assert message not in tried
        readings = [each for each in tried if isinstance(each, dict)]
        if case.want is BETTER:
            return
        assert any({**got, **case.want} == got for got in readings)
        return
    given = case.remedy(root, message) if callable(case.remedy) else case.remedy
    options = {**case.options, **edit(root, given)}
    options = {name: value for name, value in options.items() if value is not None}
    if case.want is BETTER:
        with pytest.raises(InputError) as again:
            case.read(root=root, **options)
        assert str(again.value) != message
        return
    got = case.read(root=root, **options)
    got = got if isinstance(got, dict) else whole(got)
    assert {**got, **case.want} == got


def attempt(case: Case, root: Path, options: dict) -> dict | str:
    """What is read with more options, or what is asked next."""
    try:
        got = case.read(root=root, **{**case.options, **options})
    except InputError as error:
        return str(error)
    return got if isinstance(got, dict) else whole(got)


def flat(options: dict) -> dict:
    """``--data-options missing=skip`` as Python takes it."""
    name, _, value = str(options.get("data_options", "")).partition("=")
    rest = {key: option for key, option in options.items() if key != "data_options"}
    return {**rest, name: value} if value else rest


# --- every refusal of the readers has a case ---------------------------------------------------


class Site(NamedTuple):
    """A place that refuses: its lines, and what its message looks like."""

    module: str
    line: int
    end: int
    pattern: str


@cache
def sites() -> list[Site]:
    """Every place in the readers that makes an error or a question."""
    found = []
    for module in READERS:
        path = DATA / f"{module}.py"
        body = ast.parse(path.read_text())
        wrappers = [
            n for n in ast.walk(body) if isinstance(n, ast.FunctionDef) and n.name == "error"
        ]
        inside = {id(n) for wrapper in wrappers for n in ast.walk(wrapper)}
        statements = [n for n in ast.walk(body) if isinstance(n, ast.Raise | ast.Return | ast.Expr)]
        for statement in statements:
            calls = [
                n for n in ast.walk(statement) if isinstance(n, ast.Call) and id(n) not in inside
            ]
            if any(map(refuses, calls)):
                call = next(filter(refuses, calls))
                raised = isinstance(statement, ast.Raise)  # whose line is seen in a traceback
                pattern = "(?!)" if raised else pattern_of(call)
                found.append(Site(module, statement.lineno, statement.end_lineno, pattern))
    return found


def refuses(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    return bool(re.search(r"(^|\W)(InputError|NoLabelsError)\b|\.error$|doubts\.append$", name))


def pattern_of(call: ast.Call) -> str:
    """The constant parts of a message, in their order."""

    def part(node) -> str:
        if isinstance(node, ast.Constant):
            return re.escape(str(node.value))
        if isinstance(node, ast.JoinedStr):
            return "".join(map(part, node.values))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return part(node.left) + part(node.right)
        return ".*"

    text = part(call.args[-1]) if call.args else ".*"
    return text if len(text.replace(".*", "")) > 15 else "(?!)"


def produced(error: BaseException) -> set[Site]:
    """The places that a refusal comes from."""
    lines, trace = set(), error.__traceback__
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.parent == DATA:
            lines.add((path.stem, trace.tb_lineno))
        trace = trace.tb_next
    return {
        site
        for site in sites()
        if any(module == site.module and site.line <= line <= site.end for module, line in lines)
        or re.search(site.pattern, str(error))
    }


def test_every_refusal_has_a_case(tmp_path):
    seen = set()
    questions = [Case("", {"train.csv": text, "photos/6.jpg": ""}) for text, _ in ASKED.values()]
    for number, case in enumerate([*CASES.values(), *questions]):
        root = build(tmp_path / str(number), case)
        seen |= produced(asked(case, root))
    left = [site for site in sites() if site not in seen]
    assert not left, "\n".join(f"ltml/data/{s.module}.py, line {s.line}: no case" for s in left)


# --- questions ---------------------------------------------------------------------------------

# The labels of each image of 6, in tables whose reading is asked about: text, images, the answer
# that gives WANT.
ASKED = {
    "category beside 0 and 1": (
        table("filename,category,cat,dog", lambda i: f"{i},{['in', 'out'][i % 2]},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"]}),
    "spaces": (table("image,labels", lambda i: f"{i},{ANIMALS[i]}").replace("cat dog", "cat dog x") + "6,x cow\n", {"separator": " "}),
    "a person's column": (
        table("image,male,cat,dog", lambda i: f"{i},{i % 2},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}"), {"ignore": ["male"]}),
    "a summary": (
        table("ID,Disease_Risk,cat,dog,cow", lambda i: f"{i},1,{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])},0").replace("5,1,1,1,0", "5,0,0,0,0"),
        {"ignore": ["Disease_Risk"]}),
    "-1 beside 0": (
        table("image,cat,dog", lambda i: f"{i},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}").replace("0,1,0", "0,1,-1"), {"values": "-1=0"}),
    "blank beside 1": (
        table("image,cat,dog", lambda i: f"{i},{'1' * ('cat' in ANIMALS[i])},{'1' * ('dog' in ANIMALS[i])}"), {"values": "blank=0"}),
    "counts": (
        table("image,cat,dog", lambda i: f"{i},{2 * ('cat' in ANIMALS[i])},{3 * ('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"], "values": ">=1=1"}),
    "a slip": (table("image,cat,dog", lambda i: f"{i},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}") + "6,2,0\n", {"values": ">=1=1"}),
    "confidences": (
        rows("image,label,Confidence", *(f"{i},{n},{0.9 if n in ANIMALS[i] else 0.1}" for i in range(6) for n in ("cat", "dog"))),
        {"value_column": "Confidence", "values": ">=0.5=1,<0.5=0"}),
    "primary and secondary": (
        table("filename,primary_label,secondary_labels", lambda i: f"{i},{ANIMALS[i].split()[0]},\"{ANIMALS[i].split()[1:]}\""),
        {"label_columns": ["primary_label", "secondary_labels"]}),
    "another column of labels": (
        table("image,labels,seen", lambda i: f"{i},{['cat', 'dog', 'cat', 'dog', 'cat', 'cat'][i]},{'dog' * (i in (2, 5))}"),
        {"label_columns": ["labels", "seen"]}),
    "readers": (
        rows("image_id,reader,cat,dog", *(f"{i},{r},{int('cat' in ANIMALS[i] and r == 0)},{int('dog' in ANIMALS[i])}" for i in range(6) for r in range(2))),
        {"readers": "any"}),
    "words": (table("image,words", lambda i: f"{i},{ANIMALS[i]}").replace("cat dog", "cat|dog"), {"label_columns": ["words"]}),
    "crosses": (
        table("image,cat,dog", lambda i: f"{i},{'x' * ('cat' in ANIMALS[i])},{'x' * ('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"], "values": "x=1,blank=0"}),
    "two words of one's own": (
        table("image,cat,dog", lambda i: f"{i},{['nein', 'ja']['cat' in ANIMALS[i]]},{['nein', 'ja']['dog' in ANIMALS[i]]}"),
        {"class_columns": ["cat", "dog"], "values": "ja=1,nein=0"}),
    "1 for no and 2 for yes": (
        table("image,cat,dog", lambda i: f"{i},{1 + ('cat' in ANIMALS[i])},{1 + ('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"], "values": "1=0,2=1"}),
    "shares": (
        table("image,cat,dog", lambda i: f"{i},{0.9 * ('cat' in ANIMALS[i])},{0.2 + 0.3 * ('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"], "values": ">=0.5=1,<0.5=0"}),
    "shares beside 0 and 1": (
        table("image,cat,dog", lambda i: f"{i},{int('cat' in ANIMALS[i])},{[0.33, 0, 1, 0.66][2 * ('dog' in ANIMALS[i]) + i % 2]}"),
        {"values": ">=0.5=1,<0.5=0"}),
    "small counts": (
        table("image,cat,dog", lambda i: f"{i},{(1 + i % 2) * ('cat' in ANIMALS[i])},{(1 + i % 3) * ('dog' in ANIMALS[i])}"),
        {"values": ">=1=1"}),
    "a grade beside classes": (
        table("image,grade,cat,dog", lambda i: f"{i},{i % 5},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}"),
        {"ignore": ["grade"]}),
    "an attribute's value": (
        rows("image,attribute,value", *(f"{i},{a},{v}" for i in range(6) for a, v in zip("ab", 2 * ANIMALS[i].split(), strict=False))),
        {"label_columns": ["value"]}),
    "names and vectors": (
        table("image,labels,target", lambda i: f"{i},\"{ANIMALS[i].split()}\",\"[{int('cat' in ANIMALS[i])}, {int('dog' in ANIMALS[i])}, 0]\""),
        {"label_columns": ["labels"]}),
    "two kinds of labels": (
        table("image,label,class,cat,dog", lambda i: f"{i},x{i % 2},y{i % 3},{int('cat' in ANIMALS[i])},{int('dog' in ANIMALS[i])}"),
        {"class_columns": ["cat", "dog"]}),
}  # fmt: skip


def _read(options, root):
    return load(root=root, **options)


@pytest.mark.parametrize("name", ASKED)
def test_a_question_is_asked_once_and_every_answer_helps(tmp_path, name):
    """What a question offers, done literally, reads the table, or leads to another question."""
    text, answer = ASKED[name]
    root = tree(tmp_path, {"train.csv": text}, [*JPG, "photos/6.jpg"])
    with pytest.raises(InputError) as asked:
        load(root=root)
    offered = answers(str(asked.value))
    if name != "spaces":  # whose question names the option and both values
        assert answer in offered
    for options in offered:
        again = read_or_error(partial(_read, options), root)
        if again is None:
            with pytest.raises(InputError) as next_question:
                _read(options, root)
            assert str(next_question.value) != str(asked.value)
    got = whole(load(root=root, **answer))
    want = labels(*ANIMALS)
    if name == "spaces":
        want = labels(*(a.replace("cat dog", "cat dog x") for a in ANIMALS)) | {"6": {"x", "cow"}}
    elif name == "a slip":
        want["6"] = {"cat"}
    elif name == "a summary":
        want["5"] = set()
    assert got == want
