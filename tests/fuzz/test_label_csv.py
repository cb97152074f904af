"""Label files: whatever they hold, the labels of their images by one separator, or one error."""

import csv
import io
import posixpath
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome, text_of

from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.data.folder import load, read_label_csv

CLASSES = ["cat", "dog", "traffic light"]
NAMED = b"id,image,labels\n1,a.jpg,cat;dog\n2,sub/b.jpg,traffic light;dog\n3,c.jpg,\n4,d.jpg,dog\n"
NUMBERED = b"image,labels\na.jpg,0 2\nsub/b.jpg,1\n\nc.jpg,2 1 0\nd.jpg,\n"
NOTHING = {"", "nan", "null", "none", "-", "[]", "{}"}  # what stands for no label
TOKENS = [b"a.jpg", b"./a.jpg", b"sub/../a.jpg", b"cat", b"cats", b"dog;", b"0", b"2", b"3"]
TOKENS += [b"00000000000001", b"1.0", b"99999", b'"a.jpg"', b'"a\n.jpg"', b",,", b"image"]
TOKENS += [b"labels", b"['cat']", b'"[""dog""]"', b"[0]", b"Cat", b'"cat, dog"', b"cat|dog"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("labels") / "train.csv"


def rows_of(content: bytes) -> list[tuple[str, str]] | None:
    """Image and label cell of each line, by a lenient reading; None if the header is another."""
    text = re.sub("\r\n|\r", "\n", text_of(content))
    for delimiter in ",;\t":
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
        rows = [row for row in reader if any(cell.strip() for cell in row)]
        header = [re.sub("[\\s_.'\"-]", "", cell).lower() for cell in rows[0]]
        image = [i for i, name in enumerate(header) if name in ("image", "images")]
        labels = [i for i, name in enumerate(header) if name in ("label", "labels")]
        if image and labels:
            break
    else:
        return None
    assert all(len(row) == len(header) for row in rows), "a line that lacks a column was read"
    return [(row[image[0]].strip(), row[labels[0]].strip()) for row in rows[1:]]


def readings(cells: list[str]):
    """Labels of all cells, by each separator that may have been meant."""
    cells = [cell if cell.lower() not in NOTHING else "" for cell in cells]
    yield [{cell} for cell in cells]
    yield [set(cell.split()) for cell in cells]
    for mark in ";|,":
        yield [{part.strip() for part in cell.split(mark)} for cell in cells]
    yield [set(re.findall(r"[^][\"',\s]+", cell)) for cell in cells]  # a list


def check_against(content: bytes, found, known) -> None:
    """Assert that images and labels are those of the lenient reading, by one separator."""
    images, labels = found
    rows = rows_of(content)
    assert len(images) == len(labels) == len(set(images)) > 0
    if rows is None:  # what another header means is other tests' matter
        return
    first = dict(reversed([(posixpath.normpath(image), image) for image, _ in rows]))
    assert sorted(images) == sorted(first.values())
    here = [images.index(first[posixpath.normpath(image)]) for image, _ in rows]
    matches = []
    for reading in readings([cell for _, cell in rows]):
        wanted = [set() for _ in images]
        for i, row in zip(here, reading, strict=True):
            wanted[i] |= {label for label in row if label.lower() not in NOTHING}
        by_name = [{labels.class_names[c] for c in labels[i]} for i in range(len(images))]
        numbers = all(re.fullmatch("[0-9]+", word) for row in wanted for word in row)
        by_number = numbers and [set(map(int, row)) for row in wanted]
        matches.append(wanted == by_name or by_number == [set(row.tolist()) for row in labels])
    assert any(matches)
    if known is not None:
        assert labels.class_names == tuple(known)


@given(
    st.dictionaries(names(exclude="\\/;,"), st.sets(st.integers(0, 4)), min_size=1, max_size=6),
    st.lists(names(exclude=";|\\"), min_size=5, max_size=5, unique=True),
    st.data(),
)
@fuzz(200)
def test_what_was_written_is_read(path, images, classes, data):
    """Images and class names of any script, in any quoting, with any line ends, come back."""
    classes = [f"_{name}" for name in classes]  # numbers for names are another test's
    numbered = data.draw(st.booleans())
    out = io.StringIO()
    writer = csv.writer(
        out,
        quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
        lineterminator=data.draw(st.sampled_from(["\n", "\r\n", "\r"])),
    )
    writer.writerow(["labels", "image", "note"])
    for image, labels in images.items():
        words = [str(c) if numbered else classes[c] for c in sorted(labels)]
        writer.writerow([";".join(words) + ";" if words else "", image, "x,y"])
    path.write_bytes(out.getvalue().encode("utf-8-sig" if data.draw(st.booleans()) else "utf-8"))
    found, labels = read_label_csv(path, classes)
    assert found == list(images)
    assert [set(row.tolist()) for row in labels] == list(images.values())


@pytest.mark.parametrize("known", [None, CLASSES])
@given(content=st.one_of(mutated(NAMED, TOKENS), mutated(NUMBERED, TOKENS)))
@fuzz(300)
@example(content=b"image,labels\na.jpg,00000000000001 2\nb.jpg,0\n")
@example(content=b"image,labels\na.jpg,cat\nb.jpg\n")
@example(content=b"image,labels\na.jpg,cat\nb.jpg,dog,cat\n")
@example(content=b'image,labels\na.jpg,"cat\nb.jpg,dog\n')
def test_a_broken_file_is_read_rightly_or_refused(path, known, content):
    """Images and labels are those of each whole line; unknown labels and cut lines are errors."""
    path.write_bytes(content)
    found = outcome(read_label_csv, path, known)
    if found is not None:
        check_against(content, found, known)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    (root / "sub").mkdir()
    for name in ("a.jpg", "sub/b.jpg", "c.jpg", "d.jpg"):
        (root / name).touch()
    (root / "test.jpg").touch()
    (root / "test.csv").write_text("image,labels\ntest.jpg,dog\n")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@given(content=mutated(NAMED, TOKENS))
@fuzz(200)
def test_a_split_is_its_file_or_the_file_is_named(root, content):
    """Images are found where the file says, each once and with its labels."""
    path = root / "train.csv"
    path.write_bytes(content)
    split = outcome(lambda _: load(root=root).train, path, also="no label")
    if split is not None:
        check_against(content, (split.ids, split.labels), CLASSES)
        assert all(image.is_file() for image in split.images)


@given(content=mutated(b"cat\ndog\ntraffic light\n", [b"cat", b" ", b"\tdog"]))
@fuzz(100)
def test_a_broken_list_of_classes_is_read_rightly_or_refused(tmp_path_factory, content):
    """Class c is the name on line c: a gap, a name twice or an unprintable one is an error."""
    root = tmp_path_factory.getbasetemp() / "classes"
    root.mkdir(exist_ok=True)
    for split in ("train", "test"):
        (root / f"{split}.jpg").touch()
        (root / f"{split}.csv").write_text(f"image,labels\n{split}.jpg,0\n")
    (root / "classes.txt").write_bytes(content)
    both = "may be an index too"  # an error of the CSV file that uses such a name
    data = outcome(lambda _: load(root=root), root / "classes.txt", also=both)
    if data is not None:
        lines = re.split("\r\n|\r|\n", text_of(content).rstrip())
        assert list(data.class_names) == [line.strip() for line in lines]


@pytest.mark.parametrize("row", [[0.7], ["1"], [True], [None], [float("nan")], [10**30]])
def test_a_label_matrix_takes_no_other_than_indices(row):
    """Rounding 0.7 to class 0 would be a wrong label in silence."""
    with pytest.raises(InputError, match="image 1 has label"):
        LabelMatrix.from_lists([[0, 1], row], ["cat", "dog"])
    labels = LabelMatrix.from_lists([np.array([1], np.uint8), [], range(2)], ["cat", "dog"])
    assert labels.dense().tolist() == [[0, 1], [0, 0], [1, 1]]
