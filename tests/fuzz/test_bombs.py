"""What an enemy may send: files that grow, names that lead out, links, archives of both."""

import io
import json
import os
import tarfile
import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzz, mutated, outcome

from ltml.data.coco import load as load_coco
from ltml.data.fetch import _unpack
from ltml.data.voc import load as load_voc
from ltml.data.voc import read_annotation

CAT = "<annotation><object><name>{}</name></object></annotation>"
LAUGHS = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12))
XML_BOMBS = {
    "billion laughs": f'<!DOCTYPE a [<!ENTITY e0 "ha">{LAUGHS}]>' + CAT.format("&e11;"),
    "quadratic": f'<!DOCTYPE a [<!ENTITY e "{"x" * 50_000}">]>' + CAT.format("&e;" * 50_000),
    "recursive": '<!DOCTYPE a [<!ENTITY a "&b;"><!ENTITY b "&a;">]>' + CAT.format("&a;"),
    "parameter": "<!DOCTYPE a [<!ENTITY % p SYSTEM 'file:///etc/passwd'>%p;]>" + CAT.format("cat"),
    "external file": "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + CAT.format("&x;"),
    "external address": "<!DOCTYPE a [<!ENTITY x SYSTEM 'http://localhost/'>]>" + CAT.format("&x;"),
    "remote DTD": "<!DOCTYPE annotation SYSTEM 'http://localhost/a.dtd'>" + CAT.format("cat"),
    "default attribute": "<!DOCTYPE a [<!ATTLIST object x CDATA 'y'>]>" + CAT.format("cat"),
    "undeclared": CAT.format("&x;"),
    "many attributes": CAT.replace("<object>", "<object" + " a='1'" * 9 + ">").format("cat"),
    "deep": "<annotation>" + "<a>" * 100_000,
    "large": CAT.format("x" * 5_000_000),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-7"])
@pytest.mark.parametrize("bomb", XML_BOMBS)
def test_xml_bombs_are_refused_before_they_grow(tmp_path, bomb, encoding):
    """Nothing is expanded or fetched, in whatever encoding a declaration hides."""
    path = tmp_path / "a.xml"
    head = f"<?xml version='1.0' encoding='{encoding}'?>"
    path.write_bytes((head + XML_BOMBS[bomb]).encode(encoding))
    tracemalloc.start()
    found = outcome(read_annotation, path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found is None
    assert peak < 40e6


def test_included_files_are_not_read(tmp_path):
    """XInclude is another standard's; its elements are none of VOC's."""
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation xmlns:xi='http://www.w3.org/2001/XInclude'><object><name>cat"
        "<xi:include href='/etc/passwd' parse='text'/></name></object></annotation>"
    )
    assert outcome(read_annotation, path) is None


ODD = ["../a", "/etc/passwd", "..", ".", "\\a", "//host/a", "~", "loop", "sub", "pipe", "", " "]
ODD += ["file:///etc/passwd", "a" * 5000, "a\0", "\u2025/a", "a\n", "sub/", "\ud800", "a/b/c"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in COCO's layout and VOC's, with what is no file: a folder, a loop, a pipe."""
    root = tmp_path_factory.mktemp("place")
    for folder in ("train2017", "val2017", "JPEGImages", "Annotations"):
        (root / folder / "sub").mkdir(parents=True)
        (root / folder / "a.jpg").touch()
        for name in ("loop.jpg", "loop.xml"):
            (root / folder / name).symlink_to(name)
        for name in ("pipe.jpg", "pipe.xml"):
            os.mkfifo(root / folder / name)  # reading it would wait for ever
    for folder in ("annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations/a.xml").write_text(CAT.format("cat"))
    (root / "ImageSets/Main/val.txt").write_text("a")
    (root / "annotations/instances_val2017.json").write_text(instances("a.jpg"))
    return root


def instances(name: str) -> str:
    return json.dumps({
        "images": [{"id": 1, "file_name": name}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
    })  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_name_that_is_no_image_is_named(place, name):
    """Whatever a list names is an image under the root or an error of the list, at once."""
    images = {place / "train2017/a.jpg", place / "JPEGImages/a.jpg", place / "val2017/a.jpg"}
    coco = place / "annotations/instances_train2017.json"
    coco.write_text(instances(f"{name}.jpg"))
    data = outcome(lambda _: load_coco(root=place), coco, also="both splits")
    assert data is None or images >= set(data.train.images)
    ids = place / "ImageSets/Main/train.txt"
    ids.write_bytes(name.encode("utf-8", "surrogatepass"))
    data = outcome(lambda _: load_voc(root=place), ids, also="both splits")
    assert data is None


FILES = {"a/b.xml": b"<annotation/>" * 9, "a/c.jpg": bytes(range(256)), "d": b""}


def archive(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "tar":
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, body in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
    else:
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            for name, body in FILES.items():
                file.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)  # without the time
    return out.getvalue()


@pytest.mark.parametrize("kind", ["tar", "zip"])
@given(data=st.data())
@fuzz(100)
def test_a_damaged_archive_unpacks_inside_its_folder_or_is_named(tmp_path_factory, kind, data):
    """No name, size or checksum that is changed leads out, or to another error."""
    content = data.draw(mutated(archive(kind), [b"../x", b"/etc/x", b"7777777", b"\xff" * 4]))
    top = tmp_path_factory.mktemp("archive")
    path, out = top / f"a.{kind}", top / "out" / "deep"
    path.write_bytes(content)
    done = outcome(lambda p: _unpack(p, out, lambda name: True) or True, path)
    there = [file for file in top.rglob("*") if file.is_file() and file != path]
    assert all(file.is_relative_to(out) for file in there)
    assert done or not there
    if done and kind == "zip":  # whose checksums guard every byte
        assert set(FILES.values()) >= {file.read_bytes() for file in there}
