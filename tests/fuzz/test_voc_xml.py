"""VOC annotations: whatever bytes they hold, the classes of their objects or one error."""

import xml.parsers.expat
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome, text_of

from ltml.data.voc import VOC_CLASSES, read_annotation, rows

TAGS = [b"<object>", b"</object>", b"<name>", b"</name>", b"<object/>", b"<name/>", b"<part>"]
TAGS += [b"</part>", b"</annotation>", b"<!-- x -->", b"<!--", b"-->", b"<![CDATA[", b"]]>"]
TAGS += [b"<?xml version='1.0'?>", b"<!DOCTYPE a>", b"&amp;", b"&x;", b"&#0;", b"&#99;"]
TAGS += [b"&#xD800;"]
TAGS += [b"cat", b"dog", b"unicorn", b" xmlns='u'", b"<object xmlns='u'>", b"<a:name>", b"Cat"]
VALID = b"""<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>VOC2012</folder>
  <filename>a.jpg</filename>
  <size><width>500</width><height>375</height><depth>3</depth></size>
  <object>
    <name>person</name><pose>Left</pose><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>
  </object>
  <object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>
  <object><name>person</name></object>
</annotation>
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A devkit whose training image ``a`` has the annotation that a test writes."""
    root = tmp_path_factory.mktemp("devkit")
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / "VOC2012" / folder).mkdir(parents=True)
    (root / "VOC2012/JPEGImages/a.jpg").touch()
    (root / "VOC2012/ImageSets/Main/train.txt").write_text("a")
    return root


def names_by_expat(text: str) -> list[str]:
    """Names of the objects, from the parser's events rather than from a tree.

    Every object counts, wherever it stands and in whatever namespace.
    """
    found, path = [], []

    def start(tag, _):
        path.append(tag.rpartition(" ")[2])
        if path[-1] == "object":
            found.append("")

    def text_inside(data):
        if path[-2:] == ["object", "name"]:
            found[-1] += data

    parser = xml.parsers.expat.ParserCreate("utf-8", " ")
    parser.StartElementHandler, parser.EndElementHandler = start, lambda _: path.pop()
    parser.CharacterDataHandler = text_inside
    parser.Parse(text.encode(), True)
    return [name.strip() for name in found]


@given(st.lists(names(), min_size=1, max_size=6), st.data())
@fuzz(120)
def test_what_was_written_is_read(tmp_path_factory, written, data):
    """Names of any script, in any order and number, among other elements, come back as written."""
    path = tmp_path_factory.getbasetemp() / "written.xml"
    noise = st.sampled_from(
        ["", "\n", "<pose>Left</pose>", "<!-- cat -->", "<part><name>x</name></part>"]
    )
    objects = []
    for name in written:
        pad = data.draw(st.sampled_from(["", " ", "\n\t"]))
        inside = escape(name) if data.draw(st.booleans()) else f"<![CDATA[{name}]]>"
        if "]]>" in name:
            inside = escape(name)
        objects.append(
            f"<object>{data.draw(noise)}<name>{pad}{inside}{pad}</name>{data.draw(noise)}</object>"
        )
    top = data.draw(st.sampled_from(["", '<?xml version="1.0"?>', "\ufeff"]))
    text = f"{top}<annotation><filename>/etc/x</filename>{''.join(objects)}</annotation>"
    path.write_bytes(text.encode())
    assert read_annotation(path) == written


@given(mutated(VALID, TAGS))
@fuzz(300)
@example(VALID.replace(b"<name>cat</name>", b"<name>cat</name><name>dog</name>"))
@example(VALID.replace(b"<name>cat</name>", b"<name>cat<b/>fish</name>"))
@example(VALID.replace(b"<object><name>cat", b"<object xmlns='u'><name>cat"))
@example(
    VALID.replace(b"<object><name>cat", b"<objects><object><name>cat").replace(
        b"</annotation>", b"</objects></annotation>"
    )
)
@example(VALID.replace(b"cat", b"c&#97;t"))
def test_a_broken_annotation_is_read_rightly_or_refused(tree, content):
    """Objects are those that a second parser sees, and no object or name is lost on the way.

    The label row holds their classes; an unknown class is an error, not a gap.
    """
    path = tree / "VOC2012/Annotations/a.xml"
    path.write_bytes(content)
    found = outcome(read_annotation, path)
    split = outcome(lambda _: rows(tree, "train").split(), path)
    if found is None:
        assert split is None
        return
    assert found == names_by_expat(text_of(content))
    assert all(found)
    if split is None:
        assert not set(found) <= set(VOC_CLASSES)
        return
    assert {VOC_CLASSES[c] for c in split.labels[0]} == set(found)
    assert split.images == [tree / "VOC2012/JPEGImages/a.jpg"]  # whatever <filename> says
