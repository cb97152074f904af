"""Lists of image ids: VOC's image sets, VOC-LT's and COCO-LT's lists."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome, text_of

from ltml.core.files import read_list
from ltml.data.coco import read_lt_ids
from ltml.data.voc import rows

VALID = b"2008_000001\n2008_000002 -1\n\n2008_000015  1\n2009_000003\n"
LT_VALID = b"554625\n000000000002\n000000000003.jpg\ntrain2017/000000000004.jpg\n"
SPACE = ["\n", "\r\n", "\r", "\n\n", " \n", "\n \t\n"]
LINE = re.compile(r"\r\n|\r|\n")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("lists") / "list.txt"


def lines_of(content: bytes) -> dict[int, list[str]]:
    """Words of every line that has any."""
    lines = enumerate(LINE.split(text_of(content)), 1)
    return {number: words for number, line in lines if (words := line.split())}


@given(
    st.lists(names(max_size=20).filter(lambda n: len(n.split()) == 1), min_size=1, unique=True),
    st.data(),
)
@fuzz(120)
def test_what_was_written_is_read(path, ids, data):
    """Ids of any script come back with their lines, whatever ends lines and stands after ids."""
    text, wanted = data.draw(st.sampled_from(["", "\ufeff", "\n \n"])), []
    for name in ids:
        wanted.append((len(LINE.split(text)), name))
        flag = data.draw(st.sampled_from(["", " -1", "  1", "\t0", " 1  1"]))
        text += name + flag + data.draw(st.sampled_from(SPACE))
    path.write_bytes(text.encode())
    assert read_list(path) == wanted


@given(mutated(VALID, [b"2008_000001", b" 2008_000015", b" 1 -1", b"# note"]))
@fuzz(200)
@example(b"1 2 3\n4\n")
@example("1\n2\u20283\n".encode())
@example(b"a b c\n")
def test_a_broken_list_is_read_rightly_or_refused(path, content):
    """Every id of the file is read, once and with its line: none is dropped as a further word."""
    path.write_bytes(content)
    ids = outcome(read_list, path)
    if ids is None:
        return
    lines = lines_of(content)
    assert ids == [(number, words[0]) for number, words in lines.items()]
    assert len({name for _, name in ids}) == len(ids)
    flags = [word for words in lines.values() for word in words[1:]]
    assert all(re.fullmatch(r"[-+]?[0-9]{1,3}", word) for word in flags)


@given(st.lists(st.integers(0, 10**12 - 1), min_size=1, unique=True), st.data())
@fuzz(100)
def test_lt_ids_of_any_form_are_read(path, ids, data):
    """Each of the four ways to name an image of train2017 gives its number, in order."""
    forms = st.sampled_from(["{}", "{:012}", "{:012}.jpg", "train2017/{:012}.jpg", "./{}"])
    path.write_text("\n".join(data.draw(forms).format(number) for number in ids))
    assert list(read_lt_ids(path)) == ids


@given(mutated(LT_VALID, [b"train2017/", b".jpg", b"val2017/1.jpg", b"./", b"2.0", b"0x2"]))
@fuzz(120)
def test_a_broken_lt_list_is_read_rightly_or_refused(path, content):
    """A reading holds the digits of every line; what is no number of an image is an error."""
    path.write_bytes(content)
    ids = outcome(read_lt_ids, path)
    if ids is None:
        return
    wanted = {}
    for number, (name, *_) in lines_of(content).items():
        digits = name.removeprefix("./").removeprefix("train2017/").removesuffix(".jpg")
        assert digits.isascii()
        assert digits.isdecimal()
        wanted[int(digits)] = f"{path}, line {number}"
    assert ids == wanted


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("devkit") / "VOC2012"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name in re.findall(r"\d{4}_\d+", VALID.decode()):
        xml = "<annotation><object><name>cat</name></object></annotation>"
        (root / "Annotations" / f"{name}.xml").write_text(xml)
        (root / "JPEGImages" / f"{name}.jpg").touch()
    return root


@given(mutated(VALID, [b"2008_000002", b"2008_000002/../2008_000001", b"2008_000001.jpg"]))
@fuzz(100)
def test_a_split_is_its_list_or_the_line_is_named(tree, content):
    """No id is left out or looked for elsewhere: a split has the images that its list names."""
    listing = tree / "ImageSets/Main/train.txt"
    listing.write_bytes(content)
    split = outcome(lambda _: rows(tree, "train").split(), listing)
    if split is None:
        return
    assert split.ids == [words[0] for words in lines_of(content).values()]
    assert [image.stem for image in split.images] == split.ids
