import contextlib
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Served, serving

import ltml
from ltml import InputError, LabelMatrix
from ltml.data import fetch
from ltml.data.fetch import (
    BENCHMARKS,
    Published,
    check,
    check_image,
    coco_lt,
    digest_of_ids,
    voc_lt,
)
from ltml.data.voc import VOC_CLASSES

pytest.importorskip("pooch")


def picture(width=8, height=6, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def annotation(*names):
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation>{objects}</annotation>".encode()


def tar_of(members):
    """Members: name -> bytes, or a TarInfo of whatever kind."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, body in members.items():
            info = body if isinstance(body, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if body is info else len(body)
            tar.addfile(info, None if body is info else io.BytesIO(body))
    return file.getvalue()


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what was published ---------------------------------------------------------------------------


def label_lists(shared_data, name):
    rows = []
    for split in ("train", "test"):
        with (shared_data / "label_lists" / f"{name}_{split}.csv").open() as file:
            table = list(csv.DictReader(file))
        rows.append([(row["image"], [*map(int, row["labels"].split())]) for row in table])
    return rows


@pytest.mark.parametrize(("name", "groups"), [("voc-lt", (6, 6, 8)), ("coco-lt", (22, 33, 25))])
def test_facts_are_those_of_the_real_label_lists(name, groups, shared_data):
    facts, lists = BENCHMARKS[name], label_lists(shared_data, name.replace("-", "_"))
    for split, rows in zip((facts.train, facts.test), lists, strict=True):
        labels = LabelMatrix.from_lists([row for _, row in rows], facts.classes)
        ids = [Path(image).stem for image, _ in rows]
        ids = ids if name == "voc-lt" else [str(int(image)) for image in ids]
        assert (len(labels), list(labels.counts)) == (split.images, split.counts)
        assert digest_of_ids(ids) == split.ids
        assert sum(not row for _, row in rows) == split.unlabelled
        if split is facts.train:
            assert tuple(map(len, labels.groups().values())) == groups


def test_archives_are_torchvisions():
    voc = pytest.importorskip("torchvision.datasets.voc")
    for remote, year in zip(BENCHMARKS["voc-lt"].archives, ("2012", "2007-test"), strict=True):
        there = voc.DATASET_YEAR_DICT[year]
        url = there["url"].replace("http://host.", "https://thor.")  # before torchvision 0.22
        found = remote.url, remote.path, remote.digest
        assert found == (url, there["filename"], f"md5:{there['md5']}")


def test_categories_are_cocos(shared_data):
    path = shared_data / "coco128/annotations/instances_val2017.json"
    categories = json.loads(path.read_text())["categories"]
    names = [entry["name"] for entry in sorted(categories, key=lambda entry: entry["id"])]
    assert tuple(names) == BENCHMARKS["coco-lt"].classes


def test_the_commands_import_neither_torch_nor_pooch():
    """So that ltml data --help answers at once."""
    code = "import sys, ltml.data.fetch; print([m for m in ('torch', 'pooch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dry_run_of_the_real_ones(tmp_path, capsys):
    voc_lt(tmp_path / "new", dry_run=True)
    said = capsys.readouterr().out
    assert "1,999,639,040 bytes  https://thor.robots.ox.ac.uk/pascal/VOC/voc2012" in said
    assert "in all 3 files, about 2.45 GB to fetch, and 2.30 GB to unpack them" in said
    coco_lt(tmp_path / "new", dry_run=True)
    assert "in all 6,911 files, about 1.38 GB" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


# --- fetching, from a server of small fakes -------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    with serving() as server:
        monkeypatch.setattr(fetch, "_COCO", server.url)
        yield server


def path_of(url):
    return "/" + url.rpartition("/")[2]


def serve(server, monkeypatch, name, rows, archives, listing):
    """Put a small benchmark in the place of a real one: rows are {id: classes} of both splits."""
    real, splits = BENCHMARKS[name], []
    for split in rows:
        counts = LabelMatrix.from_lists(list(split.values()), real.classes).counts
        bare = sum(not row for row in split.values())
        splits.append(Published(len(split), tuple(counts), digest_of_ids(map(str, split)), bare))
    remotes = []
    for remote, body in zip(real.archives, archives, strict=True):
        kind, url = remote.digest.partition(":")[0], server.url + path_of(remote.url)
        digest = f"{kind}:{hashlib.new(kind, body, usedforsecurity=False).hexdigest()}"
        remotes.append(replace(remote, url=url, size=len(body), digest=digest))
        server.files[path_of(url)] = Served(body)
    ids = replace(real.id_list, url=f"{server.url}/ids")
    server.files["/ids"] = Served(listing)
    train, test = splits
    facts = replace(real, train=train, test=test, archives=tuple(remotes), id_list=ids)
    monkeypatch.setitem(BENCHMARKS, name, facts)
    return facts


VOC_ROWS = (
    {"2008_000001": [11, 14], "2008_000002": [7], "2009_000003": [14]},
    {"000001": [14], "000002": [0, 3]},
)


def voc_archive(year, rows):
    # an image beside the split, and a mask, as in the real archives
    members = {"SegmentationClass/x.png": b"mask", "JPEGImages/other.jpg": picture()}
    for image, row in rows.items():
        members[f"JPEGImages/{image}.jpg"] = picture(seed=int(image[-3:]))
        members[f"Annotations/{image}.xml"] = annotation(*(VOC_CLASSES[c] for c in row))
    if year == "VOC2007":
        members["ImageSets/Main/test.txt"] = "\n".join(rows).encode() + b"\n"
    return tar_of({f"VOCdevkit/{year}/{name}": body for name, body in members.items()})


@pytest.fixture
def voc(server, monkeypatch):
    archives = [voc_archive(*pair) for pair in zip(("VOC2012", "VOC2007"), VOC_ROWS, strict=True)]
    return serve(server, monkeypatch, "voc-lt", VOC_ROWS, archives, "\n".join(VOC_ROWS[0]).encode())


def labels_of(split):
    return {name: sorted(split.labels[i]) for i, name in enumerate(split.ids)}


@pytest.mark.parametrize("devkit", [False, True])
def test_voc_lt(voc, server, tmp_path, devkit, capsys):
    """What is fetched is what load reads, whether the root is the devkit or holds it."""
    root = tmp_path / "data"
    if devkit:
        (root / "VOC2012").mkdir(parents=True)
    voc_lt(root, quiet=True)
    assert f"complete; train on it with: ltml train --data voc-lt --root {root}" in (
        capsys.readouterr().out
    )
    data = ltml.load("voc-lt", root=root)
    assert (labels_of(data.train), labels_of(data.test)) == VOC_ROWS
    top = root if devkit else root / "VOCdevkit"
    assert sorted(path.name for path in top.iterdir()) == ["VOC2007", "VOC2012", "longtail2012"]
    assert not [name for name in files_of(root) if name.endswith(".tar") or "Segment" in name]
    assert len(server.requests) == 3
    voc_lt(root, quiet=True)
    assert len(server.requests) == 3
    assert "in all 0 files" in capsys.readouterr().out


def test_an_interrupted_call_is_continued_by_the_next(voc, server, tmp_path):
    """A file that cannot be had leaves the finished ones, and only it is fetched again."""
    train, test = (path_of(remote.url) for remote in voc.archives)
    server.files[test].cut = 5000
    with pytest.raises(InputError, match=r"VOCtest.* cannot be fetched .*run again to continue"):
        voc_lt(tmp_path, quiet=True)
    assert (tmp_path / "VOCtrainval_11-May-2012.tar").exists()
    assert not list(tmp_path.rglob("VOCtest*"))
    server.files[test].cut = None
    server.requests.clear()
    voc_lt(tmp_path, keep_archives=True, quiet=True)
    assert server.requests == [test]
    assert len(list(tmp_path.glob("*.tar"))) == 2
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg").unlink()
    (tmp_path / "VOCtrainval_11-May-2012.tar").unlink()
    voc_lt(tmp_path, quiet=True)
    assert server.requests[1:] == [train]


def test_a_passing_failure_is_retried(voc, server, tmp_path):
    archive = server.files[path_of(voc.archives[0].url)]
    archive.statuses, archive.cut, archive.cuts = (503,), 100, 1
    voc_lt(tmp_path, quiet=True)
    assert server.requests.count(path_of(voc.archives[0].url)) == 3


@pytest.mark.parametrize(
    "bad", [b"2008_000001\n", b"\x80\x04\x95pickle", b"", b"<html>", b"222564\n1\n"]
)
def test_a_wrong_list_is_not_kept(voc, server, tmp_path, bad):
    server.files["/ids"] = Served(bad)
    with pytest.raises(InputError, match=r"/ids cannot be fetched"):
        voc_lt(tmp_path, quiet=True)
    assert files_of(tmp_path) == {}


def test_a_list_of_ones_own_is_not_overwritten(voc, tmp_path):
    mine = tmp_path / "VOCdevkit/longtail2012/img_id.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("2008_000001\n")
    with pytest.raises(InputError, match=r"img_id.txt is not the published list of 3 ids"):
        voc_lt(tmp_path, quiet=True)
    assert mine.read_text() == "2008_000001\n"


@pytest.mark.parametrize("change", [lambda body: body[::-1], lambda body: body + b"x"])
def test_a_wrong_archive_is_not_kept(voc, server, tmp_path, change):
    archive = server.files[path_of(voc.archives[0].url)]
    archive.body = change(archive.body)
    with pytest.raises(InputError, match=r"VOCtrainval.* cannot be fetched \(.*(hash|bytes)"):
        voc_lt(tmp_path, quiet=True)
    assert list(files_of(tmp_path)) == ["VOCdevkit/longtail2012/img_id.txt"]


def test_one_tree_is_no_root(tmp_path):
    (tmp_path / "VOC2012/JPEGImages").mkdir(parents=True)
    with pytest.raises(InputError, match="is one VOC tree; give the folder above it"):
        voc_lt(tmp_path / "VOC2012", dry_run=True)


def test_nobody_listens(voc, server, tmp_path, monkeypatch):
    nowhere = replace(voc, id_list=replace(voc.id_list, url="http://127.0.0.1:9/ids"))
    monkeypatch.setitem(BENCHMARKS, "voc-lt", nowhere)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9/ids cannot be fetched") as caught:
        voc_lt(tmp_path, quiet=True)
    assert "\n" not in str(caught.value)


COCO_ROWS = ({9: [0, 79], 25: [11], 30: []}, {139: [0, 5], 285: []})


def instances(rows, first=False):
    """A COCO file; training has one image more than the split."""
    ids = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
    images, boxes = [], []
    for image, row in {**rows, **({77: [3]} if first else {})}.items():
        images.append(dict(id=image, file_name=f"{image:012}.jpg", width=8, height=6))
        boxes += [dict(image_id=image, category_id=ids[c], bbox=[0, 0, 2, 2]) for c in row]
    categories = [
        dict(id=i, name=name) for i, name in zip(ids, BENCHMARKS["coco-lt"].classes, strict=True)
    ]
    return json.dumps(dict(images=images, annotations=boxes, categories=categories))


@pytest.fixture
def coco(server, monkeypatch):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("annotations/captions_train2017.json", "{}")
        for split, rows in zip(("train2017", "val2017"), COCO_ROWS, strict=True):
            text = instances(rows, first=split == "train2017")
            archive.writestr(f"annotations/instances_{split}.json", text)
            for image in rows:
                server.files[f"/{split}/{image:012}.jpg"] = Served(picture(seed=image))
    return serve(server, monkeypatch, "coco-lt", COCO_ROWS, [file.getvalue()], b"25\n9\n30\n")


def test_coco_lt(coco, server, tmp_path, capsys):
    coco_lt(tmp_path, quiet=True)
    data = ltml.load("coco-lt", root=tmp_path)
    assert labels_of(data.train) == {
        f"train2017/{image:012}.jpg": COCO_ROWS[0][image] for image in (25, 9, 30)
    }
    assert len(data.test) == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["annotations", "longtail2017", "train2017", "val2017"]
    assert len(list((tmp_path / "annotations").iterdir())) == 2  # no captions
    server.requests.clear()
    (tmp_path / "val2017/000000000139.jpg").unlink()
    coco_lt(tmp_path, quiet=True, connections=1)
    assert server.requests == ["/val2017/000000000139.jpg"]
    assert "1 images" in capsys.readouterr().out


def test_coco_lt_into_images(coco, tmp_path):
    """Where images/train2017 is used already, what is missing joins it, through a link too."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data/images").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (tmp_path / "disk" / split).mkdir()
        (tmp_path / "data/images" / split).symlink_to(tmp_path / "disk" / split)
    coco_lt(tmp_path / "data", quiet=True)
    assert len(ltml.load("coco-lt", root=tmp_path / "data").train) == 3
    assert len(list((tmp_path / "disk/train2017").iterdir())) == 3


@pytest.mark.parametrize("body", [picture()[:-40], b"<html>log in</html>", b""])
def test_a_bad_image_is_not_kept_and_stops_no_other(coco, server, tmp_path, body):
    server.files["/train2017/000000000025.jpg"].body = body
    with pytest.raises(InputError, match=r"25.jpg cannot .* decoded .*1 of 5 images"):
        coco_lt(tmp_path, quiet=True)
    assert len(list(tmp_path.rglob("*.jpg"))) == 4


def test_many_failures_stop_the_rest(coco, server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_MOST_FAILED", 2)
    for path in [path for path in server.files if path.endswith(".jpg")]:
        del server.files[path]
    with pytest.raises(InputError, match=r"404.*2 of 5 images failed"):
        coco_lt(tmp_path, quiet=True, connections=1)


# --- archives -------------------------------------------------------------------------------------


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


LINKS = {
    "symlink out": (tarfile.SYMTYPE, "/etc"),
    "symlink inside": (tarfile.SYMTYPE, "ok"),
    "hard link": (tarfile.LNKTYPE, "../x"),
    "device": (tarfile.CHRTYPE, ""),
    "pipe": (tarfile.FIFOTYPE, ""),
}


@pytest.mark.parametrize("what", LINKS)
def test_links_and_devices_are_refused(tmp_path, what):
    """Before anything is in place, though the bad member comes last; left out, it does no harm."""
    path, out = tmp_path / "a.tar", tmp_path / "out"
    path.write_bytes(tar_of({"ok": b"1", "l": special("l", *LINKS[what])}))
    with pytest.raises(InputError, match=r"a.tar cannot be unpacked .*'l' is a link or a device"):
        fetch._unpack(path, out, lambda name: True)
    assert files_of(out) == {}
    fetch._unpack(path, out, lambda name: name == "ok")
    assert files_of(out) == {"ok": b"1"}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/ltml-x"])
def test_no_name_leads_out(tmp_path, name, kind):
    path, out = tmp_path / f"a.{kind}", tmp_path / "out"
    if kind == "tar":
        path.write_bytes(tar_of({name: b"1"}))
    else:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, "1")
    with contextlib.suppress(InputError):  # a zip's bad names are made good
        fetch._unpack(path, out, lambda name: True)
    outside = {Path(file).parts[0] for file in files_of(tmp_path)} - {path.name, "out"}
    assert not outside
    assert not Path("/etc/ltml-x").exists()


def test_members_below_top_go_into_the_folder_and_replace_what_is_there(tmp_path):
    path, out = tmp_path / "a.tar", tmp_path / "out"
    path.write_bytes(tar_of({"top/sub/a": b"1", "top/b": b"2", "c": b"3"}))
    for _ in range(2):  # again, as after an interruption
        fetch._unpack(path, out, lambda name: name.startswith("top"), top="top")
        assert files_of(out) == {"sub/a": b"1", "b": b"2"}


@pytest.mark.parametrize("cut", [0, 100, 600, 1500])
def test_of_a_damaged_archive_nothing_is_unpacked(tmp_path, cut):
    path, out = tmp_path / "a.tar", tmp_path / "out"
    path.write_bytes(tar_of({"a": b"1" * 1000, "b": b"1" * 1000})[:cut])
    with pytest.raises(InputError, match=r"a.tar cannot be unpacked"):
        fetch._unpack(path, out, lambda name: True)
    assert files_of(out) == {}


# --- checking trees built from the real label lists -----------------------------------------------


@pytest.fixture(scope="module")
def voc_tree(shared_data, tmp_path_factory):
    """VOC-LT as it is, with one tiny photo in the place of all."""
    root = tmp_path_factory.mktemp("voc")
    (root / "photo.jpg").write_bytes(picture())
    splits = dict(zip(("VOC2012", "VOC2007"), label_lists(shared_data, "voc_lt"), strict=True))
    for year, rows in splits.items():
        tree = root / "VOCdevkit" / year
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tree / folder).mkdir(parents=True)
        for image, row in rows:
            name = Path(image).stem
            text = annotation(*(VOC_CLASSES[c] for c in row))
            (tree / f"Annotations/{name}.xml").write_bytes(text)
            os.link(root / "photo.jpg", tree / f"JPEGImages/{name}.jpg")
    ids = {year: "\n".join(Path(image).stem for image, _ in rows) for year, rows in splits.items()}
    (tree / "ImageSets/Main/test.txt").write_text(ids["VOC2007"])
    (root / "VOCdevkit/longtail2012").mkdir()
    (root / "VOCdevkit/longtail2012/img_id.txt").write_text(ids["VOC2012"])
    return root


@pytest.fixture(scope="module")
def coco_tree(shared_data, tmp_path_factory):
    """COCO-LT as it is, with one tiny photo in the place of all."""
    root = tmp_path_factory.mktemp("coco")
    (root / "photo.jpg").write_bytes(picture())
    (root / "annotations").mkdir()
    (root / "longtail2017").mkdir()
    splits = zip(("train2017", "val2017"), label_lists(shared_data, "coco_lt"), strict=True)
    for split, rows in splits:
        (root / split).mkdir()
        rows = {int(Path(image).stem): row for image, row in rows}
        text = instances(rows, first=split == "train2017")
        (root / f"annotations/instances_{split}.json").write_text(text)
        for image in rows:
            os.link(root / "photo.jpg", root / f"{split}/{image:012}.jpg")
        if split == "train2017":  # plain text all the same
            (root / "longtail2017/img_id.pkl").write_text("\n".join(map(str, rows)))
    return root


@pytest.fixture
def changed():
    """Change a file for one test: changed(path, new content or None to remove it)."""
    before = {}

    def change(path, body):
        before.setdefault(path, path.read_bytes())
        path.unlink()  # the photos are links to one file
        if body is not None:
            path.write_bytes(body)

    yield change
    for path, body in before.items():
        path.unlink(missing_ok=True)
        path.write_bytes(body)


def wrong(capsys, data, root, **options):
    """What check says is wrong, and all that it says."""
    with pytest.raises(InputError, match=f"differs from the published {data}"):
        check(data, root, quiet=True, **options)
    said = capsys.readouterr().out
    lines = [line for line in said.splitlines() if line.startswith("WRONG")]
    return [line[6:].partition(":")[0] for line in lines], said


@pytest.mark.parametrize("decode", [False, True])
def test_the_real_voc_lt(voc_tree, capsys, decode):
    check("voc-lt", voc_tree, decode=decode, quiet=True)
    said = capsys.readouterr().out
    for text in ("1,142 of 1,142", "4,952 of 4,952", "6 head, 6 medium, 8 tail", "complete; "):
        assert text in said
    voc_lt(voc_tree, dry_run=True)
    assert "in all 0 files" in capsys.readouterr().out


def test_the_real_coco_lt(coco_tree, capsys):
    check("coco-lt", coco_tree, quiet=True)
    said = capsys.readouterr().out
    for text in ("1,909 of 1,909", "5,000 of 5,000", "22 head, 33 medium, 25 tail", "48 of 48"):
        assert text in said


@pytest.mark.slow
def test_damaged_images(voc_tree, coco_tree, changed, capsys):
    changed(voc_tree / "VOCdevkit/VOC2007/JPEGImages/000003.jpg", None)
    empty = voc_tree / "VOCdevkit/VOC2012/JPEGImages/2008_000023.jpg"
    changed(empty, b"")
    what, said = wrong(capsys, "voc-lt", voc_tree, decode=True)
    assert what == ["training images", "test images", "test labels"]
    assert "'000003' has no image in" in said
    assert "test images: 4,951 of 4,952" in said
    assert said.count(f"{empty}") == 1
    for path in sorted((coco_tree / "val2017").iterdir())[:12]:
        changed(path, b"no photo")
    what, said = wrong(capsys, "coco-lt", coco_tree, decode=True)
    assert (what, "4,988 of 5,000" in said, "and 2 more" in said) == (["test images"], True, True)
    assert "more" not in wrong(capsys, "coco-lt", coco_tree, decode=True, full=True)[1]
    check("coco-lt", coco_tree, quiet=True)  # that they are no photos is seen by decoding alone


@pytest.mark.slow
def test_damaged_lists(voc_tree, coco_tree, changed, capsys):
    listing = voc_tree / "VOCdevkit/longtail2012/img_id.txt"
    changed(listing, b"".join(listing.read_bytes().splitlines(keepends=True)[:1000]))
    what, said = wrong(capsys, "voc-lt", voc_tree)
    assert what == ["training ids", "training images", "training labels"]
    assert f"training ids: 1,000 of 1,142 in {listing}" in said
    listing = coco_tree / "longtail2017/img_id.pkl"
    changed(listing, b"\n".join([b"77", *listing.read_bytes().splitlines()[1:]]))
    what, said = wrong(capsys, "coco-lt", coco_tree)
    assert what[:2] == ["training ids", "training images"]
    changed(listing, b"222564\n185989\n375245\n")  # of longtail2017img_id.pkl, another split
    assert "image 222564 is not in the instances file" in wrong(capsys, "coco-lt", coco_tree)[1]
    changed(listing, None)
    assert "training ids is missing; put it at" in wrong(capsys, "coco-lt", coco_tree)[1]


@pytest.mark.slow
def test_damaged_labels(voc_tree, coco_tree, changed, capsys):
    tree = voc_tree / "VOCdevkit/VOC2007"
    changed(tree / "Annotations/000003.xml", annotation("cat"))
    changed(tree / "Annotations/000004.xml", annotation("unicorn"))
    changed(tree / "Annotations/000001.xml", b"<annotation><object>")
    changed(tree / "Annotations/000002.xml", None)
    what, said = wrong(capsys, "voc-lt", voc_tree)
    assert what == ["test images", "test labels"]
    for text in ("class 'unicorn' is not among", "000001.xml is not well-formed XML",
                 "'000002' is annotated in 0 of VOC2007", "cat: 333 images, not 332"):  # fmt: skip
        assert text in said
    path = coco_tree / "annotations/instances_train2017.json"
    dataset = json.loads(path.read_text())
    dataset["annotations"] = dataset["annotations"][:-100]
    changed(path, json.dumps(dataset).encode())
    assert "training labels" in wrong(capsys, "coco-lt", coco_tree)[0]
    dataset["categories"][3]["name"] = "motorbike"
    changed(path, json.dumps(dataset).encode())
    what, said = wrong(capsys, "coco-lt", coco_tree)
    assert "training classes" in what
    assert "motorbike" in said
    changed(path, b'{"images": [')
    assert "is not JSON" in wrong(capsys, "coco-lt", coco_tree)[1]


@pytest.mark.parametrize("name", ["voc-lt", "coco-lt"])
def test_nothing_there(tmp_path, capsys, name):
    assert wrong(capsys, name, tmp_path)[0] == ["training split", "test split"]
    with pytest.raises(InputError, match=r"imagenet-lt.*voc-lt, coco-lt"):
        check("imagenet-lt", tmp_path)


def test_check_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture())
    check_image(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"b.jpg cannot be decoded"):
        check_image(tmp_path / "b.jpg")
