"""What an enemy may send: files that grow, names that lead out, links, archives of both."""

import io
import json
import os
import shutil
import tarfile
import tracemalloc
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzz, mutated, names, outcome

from ltml.data.archives import extract_tar, extract_zip
from ltml.data.coco import load as load_coco
from ltml.data.coco import load_coco_lt
from ltml.data.folder import load as load_folder
from ltml.data.voc import load as load_voc
from ltml.data.voc import read_annotation
from ltml.errors import InputError
from ltml.files import Root, check_name

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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-7", "utf-32"])
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


OUT = ["../secret.jpg", "sub/../../secret.jpg", "{outside}/secret.jpg", "/etc/passwd", "..", "."]
OUT += ["..\\secret.jpg", "sub\\..\\..\\secret.jpg", "C:\\secret.jpg", "//host/secret.jpg", "~"]
OUT += ["link.jpg", "linked/secret.jpg", "sub/up/secret.jpg", "loop.jpg", "sub", "pipe", "", " "]
OUT += ["file:///etc/passwd", "a.jpg/../../secret.jpg", "%2e%2e/secret.jpg", "a" * 5000]
OUT += ["a.jpg\0.jpg", "\u2025/secret.jpg", "..／secret.jpg", "a.jpg\n", "sub/"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data folder with images in every layout, links out of it, and what they lead to."""
    outside = tmp_path_factory.mktemp("outside")
    root = outside / "root"
    (outside / "secret.jpg").write_text("secret")
    (outside / "secret.xml").write_text(CAT.format("cat"))
    for folder in ("train2017", "val2017", "JPEGImages", "Annotations", "."):
        (root / folder / "sub").mkdir(parents=True, exist_ok=True)
        for name in ("a.jpg", "sub/b.jpg"):
            (root / folder / name).touch()
        (root / folder / "link.jpg").symlink_to(outside / "secret.jpg")
        (root / folder / "link.xml").symlink_to(outside / "secret.xml")
        (root / folder / "linked").symlink_to(outside)
        (root / folder / "sub/up").symlink_to("../" * (2 if folder == "." else 3))
        (root / folder / "loop.jpg").symlink_to("loop.jpg")
        os.mkfifo(root / folder / "pipe")  # reading it would wait for ever
    for folder in ("annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations/a.xml").write_text(CAT.format("cat"))
    (root / "ImageSets/Main/val.txt").write_text("a")
    (root / "test.csv").write_text("image,labels\na.jpg,cat\n")
    (root / "annotations/instances_val2017.json").write_text(instances("a.jpg"))
    return root


def instances(name: str) -> str:
    return json.dumps({
        "images": [{"id": 1, "file_name": "sub/b.jpg"}, {"id": 2, "file_name": name}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}],
    })  # fmt: skip


def check_inside(root, load, listing):
    """Refused with the list's name, or every image is a file that truly lies inside the folder."""
    split = outcome(lambda _: load(root=root).train, listing)
    if split is not None:
        for image in split.images:
            assert image.is_file()
            assert image.resolve().is_relative_to(root.resolve())
    return split


@pytest.mark.parametrize("name", OUT)
def test_no_name_leads_out_of_the_folder(place, name):
    """Absolute paths, .., links and what is no file are refused in CSV, COCO and VOC alike."""
    name = name.format(outside=place.parent)
    (place / "train.csv").write_text(f'image,labels\nsub/b.jpg,cat\n"{name}",cat\n')
    coco = place / "annotations/instances_train2017.json"
    coco.write_text(instances(name))
    ids = place / "ImageSets/Main/train.txt"
    ids.write_text(f"{name.removesuffix('.jpg')}\n")
    harmless = name in ("a.jpg\n", " ")  # which some lists strip
    assert check_inside(place, load_folder, place / "train.csv") is None or harmless
    assert check_inside(place, load_coco, coco) is None
    assert check_inside(place, load_voc, ids) is None or harmless
    lists = place / "img_id.txt"
    lists.write_text(name)
    lt = lambda root: load_coco_lt(root=root, id_list=lists)  # noqa: E731
    coco.write_text(instances("a.jpg"))
    assert check_inside(place, lt, lists) is None


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["..", ".", "", "sub", "linked", "up", "link.jpg", "a.jpg", "\\"]),
            names(),
        ),
        max_size=5,
    )
)
@fuzz(300)
def test_a_name_that_passes_leads_inside(place, parts):
    """Whatever its parts, a name that the check lets through is found inside the folder or not."""
    where, root = "list.txt, line 3", Root(place)

    def find(where):
        name = check_name("/".join(parts), where=where, folders=True)
        return root.find(name, where=where)

    path = outcome(find, where)
    if path is not None:
        assert path.resolve().is_relative_to(place.resolve())
        assert path.resolve().is_file()


@pytest.mark.parametrize(
    "folder", ["JPEGImages", "Annotations", "ImageSets", "train2017", "annotations"]
)
def test_no_linked_folder_leads_out(place, tmp_path, folder):
    """A whole folder that is a link out of the root is as bad as a file that is one."""
    root = tmp_path / "root"
    shutil.copytree(place, root, symlinks=True, ignore=lambda *_: ["pipe"])
    (root / "ImageSets/Main/train.txt").write_text("a")
    (root / "annotations/instances_train2017.json").write_text(instances("a.jpg"))
    load = load_voc if folder[0].isupper() else load_coco
    assert len(load(root=root).train)
    (root / folder).rename(tmp_path / folder)
    (root / folder).symlink_to(tmp_path / folder)
    with pytest.raises(InputError, match="leads out of"):
        load(root=root)


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
@fuzz(150)
def test_a_damaged_archive_unpacks_inside_its_folder_or_is_named(tmp_path_factory, kind, data):
    """No name, size or checksum that is changed leads out, past the limit, or to another error."""
    content = data.draw(
        mutated(archive(kind), [b"../x", b"/etc/x", b"7777777", b"\xff\xff\xff\xff"])
    )
    top = tmp_path_factory.mktemp("archive")
    path, out = top / f"a.{kind}", top / "out" / "deep"
    path.write_bytes(content)
    if kind == "tar":
        done = outcome(lambda p: extract_tar(p, out, limit=2000, progress=False), path)
    else:
        done = outcome(lambda p: extract_zip(p, out, FILES, limit=2000) or True, path)
    there = [file for file in top.rglob("*") if file.is_file() and file != path]
    assert all(file.is_relative_to(out) for file in there)
    assert sum(file.stat().st_size for file in there) <= 2000
    assert not any(file.name.endswith(".part") for file in there)
    if done and kind == "zip":  # whose checksums guard every byte
        assert {str(f.relative_to(out)): f.read_bytes() for f in there} == FILES


def test_a_header_of_petabytes_takes_no_memory(tmp_path):
    """Sizes are believed neither when memory is taken nor when room on the disk is."""
    path = tmp_path / "a.tar"
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        info = tarfile.TarInfo("a")
        info.type, info.size = kind, 2**55
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        tracemalloc.start()
        with pytest.raises(InputError, match=r"a\.tar"):
            extract_tar(path, tmp_path / "out", progress=False)
        assert tracemalloc.get_traced_memory()[1] < 10e6
        tracemalloc.stop()
    assert not (tmp_path / "out").exists()
