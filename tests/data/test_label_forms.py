"""Tables of labels as people have them: what each form reads as, or what the reader says."""

# ruff: noqa: E501 - a form and what it reads as stand side by side

import csv
import io
import json
import logging
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.core.errors import InputError
from ltml.data.folder import read_label_csv


def read(tmp_path, text, class_names=None, **options):
    path = tmp_path / "train.csv"
    path.write_text(text, encoding="utf-8")
    return read_label_csv(path, class_names, **options)


def by_name(images, labels):
    return {image: [labels.class_names[c] for c in labels[i]] for i, image in enumerate(images)}


CAT_DOG = {"1.jpg": ["cat", "dog"], "2.jpg": ["cat"], "3.jpg": ["dog"]}
TWO = "2 classes, "
GOOD = {
    "spaces": ("image,labels\n1.jpg,cat dog\n2.jpg,cat\n3.jpg,dog\n", TWO + "labels separated by spaces"),
    "semicolons": ("image,labels\n1.jpg,cat;dog\n2.jpg,cat\n3.jpg,dog;\n", TWO + "labels separated by ';'"),
    "bars": ("Image Index,Finding Labels\n1.jpg,cat|dog\n2.jpg,cat\n3.jpg,dog\n", TWO + "labels separated by '|'"),
    "quoted commas": ('path,tags\n1.jpg,"cat, dog"\n2.jpg,"cat"\n3.jpg, "dog"\n', TWO + "labels separated by ','"),
    "European": ("image;labels\r\n1.jpg;cat,dog\r\n2.jpg;cat\r\n3.jpg;dog\r\n", TWO + "labels separated by ','"),
    "European, spaces": ('"image";"labels"\n1.jpg;cat dog\n2.jpg;cat\n3.jpg;dog\n', TWO + "labels separated by spaces"),
    "tabs": ("FILE NAME\tTags\n1.jpg\tdog;cat\n2.jpg\tcat\n3.jpg\tdog\n", TWO + "labels separated by ';'"),
    "byte-order mark": ("\ufeffimage,labels\n1.jpg,cat|dog\n2.jpg,cat\n3.jpg,dog\n", TWO + "labels separated by '|'"),
    "JSON": ('file,label\n1.jpg,"[""cat"", ""dog""]"\n2.jpg,"[""cat""]"\n3.jpg,"[""dog""]"\n', TWO + "labels in lists"),
    "Python": ("file,label\n1.jpg,\"['cat', 'dog']\"\n2.jpg,['cat']\n3.jpg,['dog']\n", TWO + "labels in lists"),
    "numpy": ("file,label\n1.jpg,['cat' 'dog']\n2.jpg,['cat']\n3.jpg,['dog']\n", TWO + "labels in lists"),
    "a column each": (",image,cat,dog\n0,1.jpg,1,1\n1,2.jpg,1.0,0.0\n2,3.jpg,False,TRUE\n", TWO + "a column each: 'cat, dog'"),
    "long": ("filename,width,class,xmin\n1.jpg,9,cat,0\n2.jpg,9,cat,1\n1.jpg,9,dog,3\n1.jpg,9,dog,4\n3.jpg,9,dog,5\n", TWO + "one label per row"),
    "other columns": ("id,image,note,labels,,\n7,1.jpg,\"a, b\",cat|dog,,\n,,,,,\n8,2.jpg,,cat,,\n9,3.jpg,x,dog,,\n", TWO + "labels separated by '|'"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), GOOD.values(), ids=GOOD)
def test_forms_that_are_read(tmp_path, caplog, text, said):
    caplog.set_level(logging.INFO, "ltml")
    assert by_name(*read(tmp_path, text)) == CAT_DOG
    assert caplog.messages == [f"train.csv: {said}"]


ODD = {
    "single labels": ("image,label\na,cat\nb,dog\n", ["cat", "dog"], [[0], [1]]),
    "names with spaces": ("image,labels\na,traffic light;dog\nb,hot dog\nc,\n", ["dog", "hot dog", "traffic light"], [[0, 2], [1], []]),
    "indices": ("image,labels\na,0 2\nb,2 2\n", ["class 0", "class 1", "class 2"], [[0, 2], [2]]),
    "indices, commas": ("image;labels\na;0,1\nb;1\n", ["class 0", "class 1"], [[0, 1], [1]]),
    "lists of indices": ('image,labels\na,"[0, 1]"\nb,[]\n', ["class 0", "class 1"], [[0, 1], []]),
    "a comma in a listed name": ("image,labels\na,\"['tench, fish', 'crane']\"\n", ["crane", "tench, fish"], [[0, 1]]),
    "quotes and escapes": ("image,labels\na,\"[\"\"it's\"\", 'caf\\u00e9', 'a\\'b']\"\n", ["a'b", "café", "it's"], [[0, 1, 2]]),
    "columns in order": ("image,zebra,ant\na,1,0\nb,0,1\n", ["zebra", "ant"], [[0], [1]]),
    "quoted image": ('labels,image\nx|y,"a,b.jpg"\n\ny,"c d.jpg"\n', ["x", "y"], [[0, 1], [1]]),
}  # fmt: skip


@pytest.mark.parametrize(("text", "names", "rows"), ODD.values(), ids=ODD)
def test_odd_forms_that_are_read(tmp_path, text, names, rows):
    _, labels = read(tmp_path, text)
    assert list(labels.class_names) == names
    assert [row.tolist() for row in labels] == rows


ASKS = {
    "names or words": ("a.jpg,red circle\nb.jpg,blue square", "line 2: 'red circle' may be 'red circle' (separator 'none') or 'red' + 'circle' (separator ' '); choose with --separator"),
    "a name in a name": ("a.jpg,hot dog\nb.jpg,dog\nc.jpg,cat", "line 2: 'hot dog' may be"),
    "names that share words": ("a.jpg,red circle\nb.jpg,blue circle\nc.jpg,red square\nd.jpg,blue square", "line 2: 'red circle' may be"),
    "one name of words of many": ("a.jpg,sea lion\nb.jpg,sea\nc.jpg,lion\nd.jpg,traffic light\ne.jpg,fire truck", "line 2: 'sea lion' may be"),
    "commas in names": ('a.jpg,"tench, fish"\nb.jpg,crane', "line 2: 'tench, fish' may be 'tench, fish' (separator 'none') or 'tench' + 'fish' (separator ',')"),
    "two separators": ("a.jpg,cat;dog\nb.jpg,cat|dog", "line 3: 'cat|dog' may be 'cat|dog' (separator ';') or 'cat' + 'dog' (separator '|')"),
    "commas in one row": ('a.jpg,cat;dog\nb.jpg,"cat,bird"', "line 3: 'cat,bird' may be"),
    "spaces in one row": ("a.jpg,cat;dog\nb.jpg,cat dog\nc.jpg,bird;cat", "line 3: 'cat dog' may be"),
    "few repeated": ("\n".join(f"{i % 11}.jpg,{'cat' if i < 6 else 'dog'}" for i in range(12)), "line 13: image '0.jpg' is on line 2 already; keep one row; or"),
    "repeated among lists": ("a.jpg,['cat']\na.jpg,['dog']", "line 3: image 'a.jpg' is on line 2 already"),
    "repeated, several labels": ("a.jpg,cat;dog\n./a.jpg,cat", "line 3: image './a.jpg' is on line 2"),
    "repeated without a label": ("a.jpg,cat\na.jpg,", "line 3: image 'a.jpg' is on line 2"),
    "two spellings": ("a.jpg,cat\nb.jpg,dog;Cat", "line 3: 'Cat' is 'cat' (line 2) but for case and spaces; write them alike"),
    "underscores": ("a.jpg,traffic_light\nb.jpg,dog;Traffic  Light", "line 3: 'Traffic  Light' is 'traffic_light' (line 2)"),
    "numbers among names": ("a.jpg,cat;3", "line 2: label '3' is a number beside names"),
    "numbers below 0": ("a.jpg,0 1 -1", "line 2: '0 1 -1' holds -1, and other cells 0, so that -1 may be unknown"),
    "a large index": ("a.jpg,99999999", "line 2: label '99999999' is too large for an index"),
    "no list": ('a.jpg,"[cat, dog]"', "line 2: '[cat, dog]' is no list as JSON or Python writes it"),
    "a cut list": ("a.jpg,['a' ... 'z']", "is no list"),
    "a list among names": ("a.jpg,['cat']\nb.jpg,dog", "line 3: 'dog' is no list"),
    "no label": ("a.jpg,", "holds no label"),
    "no image": ("", "holds no image"),
    "unquoted commas": ("a.jpg,cat,dog", "line 2: there are 3 columns, not 2; put a cell that holds ',' in double quotes"),
    "a cut row": ("a.jpg", "line 2: there are 1 columns, not 2"),
    "an empty image": (",cat", "line 2: the image is ''; give its path"),
    "an open quote": ('"a.jpg,cat', "line 2 is not CSV"),
    "a swallowed row": ('"a\nb.jpg",cat', "line 3: the image is 'a\\nb.jpg'"),
    "a swallowed label": ('a.jpg,"cat\nb.jpg,dog"', "line 3: 'cat\\nb.jpg,dog' holds a line break"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), ASKS.values(), ids=ASKS)
def test_forms_that_are_asked_about(tmp_path, rows, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(tmp_path, f"image,labels\n{rows}\n")
    assert str(tmp_path / "train.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


HEADERS = {
    "no image": ("words,labels\nx,cat\n", "the columns are 'words, labels', and none is known to name images; say which: --image-column 'words'"),
    "empty": ("", "the columns are ''"),
    "two image columns": ("image,path,labels\na,b,cat\n", "columns 'image' and 'path' may both be meant"),
    "two label columns": ("image,label,class\na,cat,0\n", "columns 'label' and 'class' may both be meant"),
    "one name twice": ("image,cat,cat\na,0,1\n", "two columns have the same name"),
    "no labels": ("id,image\n7,a.jpg\n", "has no labels; call their column labels"),
    "another word": ("image,words\na,cat\n", "line 2: column 'words' holds 'cat', neither 0 nor 1; if it holds the labels, say so: --label-columns 'words'"),
    "neither 0 nor 1": ("image,cat,dog\na,1,0\nb,-1,1\n", "line 3: column 'cat' holds '-1', neither 0 nor 1"),
    "an empty flag": ("image,cat,dog\na,1,\n", "line 2: column 'dog' holds '', neither 0 nor 1"),
    "two spellings": ("image,Cat,cat\na,1,0\n", "a column: 'cat' is 'Cat' (a column) but for case"),
    "repeated": ("image,cat\na.jpg,1\na.jpg,0\n", "line 3: image 'a.jpg' is on line 2 already"),
    "an index of 0 and 1": ("id,image,cat\n0,a,1\n1,b,1\n", "column 'id' of 0 and 1 is no class; drop or rename it"),
    "both forms": ("image,labels,cat\na,cat,0\n", "both column 'labels' and the 0 and 1 of column 'cat' may give labels"),
    "both forms, numbers": ("image,label,dog\na,0,1\nb,1,0\n", "column 'dog' may give labels"),
    "doubtful labels": ("image,label,Confidence\na,cat,0.2\na,dog,1\n", "column 'Confidence' holds 0.2 to 1 for each label; say from where a label counts"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), HEADERS.values(), ids=HEADERS)
def test_columns_that_are_asked_about(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, text)


def test_a_separator_that_is_given_decides(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltml")
    text = "image,labels\na.jpg,red circle\nb.jpg,blue square\n"
    assert read(tmp_path, text, separator="none")[1].class_names == ("blue square", "red circle")
    assert read(tmp_path, text, separator=" ")[1].num_classes == 4
    text = "image,labels\na.jpg,[x]+y\nb.jpg,y\n"
    assert read(tmp_path, text, separator="+")[1].class_names == ("[x]", "y")
    text = "image,label\n" + "".join(f"{i % 11}.jpg,class {i}\n" for i in range(12))
    assert read(tmp_path, text, separator="none")[1][0].tolist() == [0, 3]
    assert caplog.messages[2:] == [
        "train.csv: 2 classes, labels separated by '+'",
        "train.csv: 12 classes, one label per row",
    ]


def test_class_names_decide(tmp_path):
    def rows(text, names):
        return [row.tolist() for row in read(tmp_path, f"image,labels\n{text}\n", names)[1]]

    assert rows("a,red circle\nb,blue", ["blue", "red circle"]) == [[1], [0]]
    assert rows("a,red circle\nb,blue", ["blue", "red", "circle"]) == [[1, 2], [0]]
    assert rows('a,"tench, fish"', ["crane", "tench, fish"]) == [[1]]
    assert rows("a,Cat;cat", ["cat", "Cat"]) == [[0, 1]]  # both are listed, so both are meant
    assert rows("a,0 2\nb,1", list("xyz")) == [[0, 2], [1]]
    assert rows("a,3\nb,7", ["7", "3"]) == [[1], [0]]
    assert rows("a,1", ["0", "1"]) == [[1]]  # the same by name and by index
    assert rows("a,20261123174501", ["20261123174501"]) == [[0]]
    text = "image,dog,note,cat\na,1,x,0\n"
    assert read(tmp_path, text, ["cat", "dog"])[1].dense().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("image,labels\na,cat\nb,cow\n", ["cat", "dog"], "line 3: label 'cow' is none of the 2 classes"),
        ("image,labels\na,Dog_\n", ["cat", "dog"], "label 'Dog_' is none of the 2 classes ('dog' but for case and spaces)"),
        ("image,labels\na,dogs\n", ["cat", "dog"], "(did you mean 'dog'?)"),
        ("image,labels\na,1\nb,2\n", ["cat", "dog"], "line 3: label '2' is none of the 2 classes"),
        ("image,labels\na,1\n", ["1", "0"], "line 2: label '1' is class 0 by name, and may be an index too"),
        ("image,labels\na,sea lion\n", ["sea", "lion", "sea lion"], "line 2: 'sea lion' may be"),
        ("image,labels\na,1\n", ["cat", "cat"], "class_names: classes 1 and 2 are both named 'cat'"),
        ("image,cat,Dog\na,1,0\n", ["cat", "dog"], "class 'dog' has no column ('Dog' but for case and spaces)"),
        ("image,cat,cow\na,1,0\n", ["cat"], "column 'cow' of 0 and 1 is no class"),
    ],
)  # fmt: skip
def test_labels_outside_the_classes(tmp_path, text, names, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(tmp_path, text, names)


FORMS = [";", "|", ",", " ", "single", "long", "JSON", "Python", "columns"]
WORD = st.text("abA'é/\N{CAT FACE}\"\\", min_size=1, max_size=3)
NAME = st.lists(WORD, min_size=1, max_size=2).flatmap(
    lambda words: st.sampled_from([" ", ", ", "-"]).map(lambda mark: mark.join(words))
)


def made_of(name, names, mark):
    parts = [part.strip() for part in name.split(mark)]
    return len(parts) > 1 and set(parts) <= set(names)


def written(form, names, rows, delimiter, dialect):
    """The table of such a form, and what is in it."""
    cells = [[name for name in names if name in row] for row in rows]
    images = [f"{i}.jpg" for i in range(len(rows))]
    head, table = ["Image Path", "labels", "note"], []
    if form == "single":
        cells = [row[:1] for row in cells]
    for image, row in zip(images, cells, strict=True):
        if form == "columns":
            table.append([image, *(str(int(name in row)) for name in names)])
        elif form == "long":
            table += [[image, name, "0"] for name in row or [""]]
        else:
            cell = {"JSON": json.dumps(row), "Python": repr(row)}.get(form, form.join(row))
            table.append([image, "".join(row) if form == "single" else cell, "x,y;z"])
    if form == "columns":
        head[1:] = names
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, **dialect)
    writer.writerows([head[: len(table[0])], *table])
    return out.getvalue(), dict(zip(images, cells, strict=True))


@pytest.mark.parametrize("cell", ['["\\ud83d\\udc31", "a\\/b"]', "['\N{CAT FACE}', 'a/b']"])
def test_lists_are_read_by_the_rules_of_who_wrote_them(tmp_path, cell):
    """JSON writes an emoji as two escapes, which are two broken characters to Python."""
    with (tmp_path / "train.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "labels"], ["1.jpg", cell], ["2.jpg", "[]"]])
    assert read_label_csv(tmp_path / "train.csv")[1].class_names == ("a/b", "\N{CAT FACE}")


@pytest.mark.slow
@given(st.sampled_from(FORMS), st.lists(NAME, min_size=1, max_size=5, unique=True), st.data())
@settings(deadline=None, max_examples=400)
def test_a_form_is_read_back_exactly_or_asked_about(tmp_path_factory, form, names, data):
    """No class's name is made of other classes' names, and none holds the separator."""
    assume(len({re.sub(r"[\s_]", "", name).casefold() for name in names}) == len(names))
    assume(not any(made_of(name, names, mark) for name in names for mark in (" ", ",")))
    assume(form not in (",", " ") or not any(form in name for name in names))
    words = [word for name in names for word in name.split()]
    assume(form not in (";", "|", ",") or all(re.search(r"\w", word) for word in words))  # no ;)
    rows = data.draw(st.lists(st.sets(st.sampled_from(names)), min_size=1, max_size=8))
    text, truth = written(
        form,
        names,
        rows,
        data.draw(st.sampled_from(",;\t")),
        {
            "quoting": data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
            "lineterminator": data.draw(st.sampled_from(["\n", "\r\n"])),
        },
    )
    path = tmp_path_factory.getbasetemp() / "form.csv"
    path.write_bytes(text.encode(data.draw(st.sampled_from(["utf-8", "utf-8-sig"]))))
    assert by_name(*read_label_csv(path, names)) == truth  # the names leave one reading
    found = read_or_error(read_label_csv, path)
    if found is not None:
        found = {image: sorted(row) for image, row in by_name(*found).items()}
        assert found == {image: sorted(row) for image, row in truth.items()}


PIECES = ["image", "labels", ",", "\n", "\r", '"', "cat", "dog", ";", " ", "0", "7", "-1", "1e9"]
PIECES += ["1.jpg", "/", "..", "\x00", "²", "9" * 30, "[", "]", "'", "\\u", "|", "\t", "path"]
TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=60)


@given(st.one_of(TEXT, st.lists(st.sampled_from(PIECES), max_size=20).map("".join)), st.booleans())
@settings(deadline=None)
def test_any_text_is_labels_or_an_error(tmp_path_factory, text, header):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((("image,labels\n" if header else "") + text).encode())
    for names in (None, ["cat", "dog"]):
        found = read_or_error(read_label_csv, path, names)
        if found is not None:
            images, labels = found
            assert len(images) == len(labels) == len(set(images)) > 0


@given(st.binary(max_size=100))
@settings(deadline=None)
def test_any_bytes_are_labels_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    path.write_bytes(b"image,labels\n" + content)
    read_or_error(read_label_csv, path)


@pytest.mark.parametrize(
    ("name", "shape", "groups"),
    [
        ("voc_lt_train", (1142, 20), (6, 6, 8)),
        ("voc_lt_test", (4952, 20), None),
        ("coco_lt_train", (1909, 80), (22, 33, 25)),
        ("coco_lt_test", (5000, 80), None),
    ],
)
def test_published_label_lists(shared_data, name, shape, groups):
    images, labels = read_label_csv(shared_data / "label_lists" / f"{name}.csv")
    assert labels.shape == shape
    assert len(images) == shape[0]
    if groups:
        assert tuple(len(classes) for classes in labels.groups().values()) == groups
    if name == "voc_lt_train":
        published = "6 34 8 14 154 17 249 29 479 4 240 48 11 20 775 100 5 82 7 64"
        assert labels.counts.tolist() == [int(count) for count in published.split()]
    if name == "coco_lt_test":
        assert sum(len(row) == 0 for row in labels) == 48  # kept without a label


def test_the_real_photos_list_is_separated_by_spaces(shared_data, caplog):
    caplog.set_level(logging.INFO, "ltml")
    read_label_csv(shared_data / "voc_lt_proxy" / "train.csv")
    assert caplog.messages == ["train.csv: 20 classes, labels separated by spaces"]
