import csv
import hashlib
import io
import json
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving import Served, serving
from torchvision.datasets.voc import DATASET_YEAR_DICT

import ltml
from ltml.cli import main
from ltml.data import published
from ltml.data.benchmarks import fetch_coco_lt, fetch_voc_lt, plan
from ltml.data.check import check, check_image
from ltml.data.published import COCO_CLASSES, COCO_LT, VOC_LT, PublishedSplit, digest_of_ids
from ltml.data.voc import VOC_CLASSES
from ltml.errors import InputError

QUICK = dict(progress=False, backoff=0.01, timeout=5)


def picture(width=8, height=6, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def annotation(*names):
    objects = "".join(f"<object><name>{name}</name></object>" for name in names)
    return f"<annotation>{objects}</annotation>".encode()


# --- what was published ---------------------------------------------------------------------------


def label_lists(shared_data, name):
    rows = []
    for split in ("train", "test"):
        with (shared_data / "label_lists" / f"{name}_{split}.csv").open() as file:
            rows.append([(row["image"], [*map(int, row["labels"].split())]) for row in csv.DictReader(file)])  # fmt: skip  # noqa: E501
    return rows


@pytest.mark.parametrize(("facts", "name"), [(VOC_LT, "voc_lt"), (COCO_LT, "coco_lt")])
def test_facts_are_those_of_the_real_label_lists(facts, name, shared_data):
    for split, rows in zip((facts.train, facts.test), label_lists(shared_data, name), strict=True):
        labels = ltml.LabelMatrix.from_lists([row for _, row in rows], facts.classes)
        ids = [Path(image).stem for image, _ in rows]
        ids = ids if name == "voc_lt" else [str(int(image)) for image in ids]
        assert (len(labels), tuple(labels.counts)) == (split.images, split.counts)
        assert digest_of_ids(ids) == split.ids
        assert sum(not row for _, row in rows) == split.unlabelled
        if split is facts.train:
            assert tuple(map(len, labels.groups().values())) == facts.groups


def test_archives_are_torchvisions():
    for remote, year in zip(VOC_LT.archives, ("2012", "2007-test"), strict=True):
        there = DATASET_YEAR_DICT[year]
        assert remote.url == there["url"]
        assert remote.path == there["filename"]
        assert remote.digest == f"md5:{there['md5']}"


def test_categories_are_cocos(shared_data):
    path = shared_data / "coco128/annotations/instances_val2017.json"
    categories = json.loads(path.read_text())["categories"]
    names = [entry["name"] for entry in sorted(categories, key=lambda entry: entry["id"])]
    assert tuple(names) == COCO_CLASSES


# --- fetching, from a server of small fakes -------------------------------------------------------


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serving() as server:
        yield server


def facts_of(real, rows, *, archives, id_of=str):
    """Facts of a small benchmark: rows are {id: classes} of both splits."""
    splits = []
    for split in rows:
        labels = ltml.LabelMatrix.from_lists(list(split.values()), real.classes)
        bare = sum(not row for row in split.values())
        ids = digest_of_ids(map(id_of, split))
        splits.append(PublishedSplit(len(split), tuple(labels.counts), ids, bare))
        if len(splits) == 1:
            groups = tuple(map(len, labels.groups().values()))
    remotes = []
    for remote, body in zip(real.archives, archives, strict=True):
        kind = remote.digest.partition(":")[0]
        digest = hashlib.new(kind, body, usedforsecurity=False).hexdigest()
        remotes.append(replace(remote, size=len(body), digest=f"{kind}:{digest}"))
    return replace(real, train=splits[0], test=splits[1], groups=groups, archives=tuple(remotes))


def path_of(url):
    """Path on a mirror."""
    return "/" + url.partition("://")[2]


VOC_ROWS = (
    {"2008_000001": [11, 14], "2008_000002": [7], "2009_000003": [14]},
    {"000001": [14], "000002": [0, 3]},
)


@pytest.fixture
def voc(server, monkeypatch):
    """The server as a mirror of a small VOC-LT."""
    archives = []
    for year, rows in zip(("VOC2012", "VOC2007"), VOC_ROWS, strict=True):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            # an image beside the split, and a mask, as in the real archives
            members = {"SegmentationClass/x.png": b"mask", "JPEGImages/other.jpg": picture()}
            for image, row in rows.items():
                members[f"JPEGImages/{image}.jpg"] = picture(seed=int(image[-3:]))
                members[f"Annotations/{image}.xml"] = annotation(*(VOC_CLASSES[c] for c in row))
            if year == "VOC2007":
                members["ImageSets/Main/test.txt"] = "\n".join(rows).encode() + b"\n"
            for name, body in members.items():
                info = tarfile.TarInfo(f"VOCdevkit/{year}/{name}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))
        archives.append(file.getvalue())
    facts = facts_of(VOC_LT, VOC_ROWS, archives=archives)
    monkeypatch.setitem(published.BENCHMARKS, "voc-lt", facts)
    for remote, body in zip(facts.archives, archives, strict=True):
        server.files[path_of(remote.url)] = Served(body)
    server.files[path_of(facts.id_list.url)] = Served("\n".join(VOC_ROWS[0]).encode())
    return facts


def labels_of(split):
    return {name: sorted(split.labels[i]) for i, name in enumerate(split.ids)}


@pytest.mark.parametrize("devkit", [False, True])
def test_voc_lt(voc, server, tmp_path, devkit):
    """What is fetched is what load reads, whether the root is the devkit or holds it."""
    root = tmp_path / "data"
    if devkit:
        (root / "VOC2012").mkdir(parents=True)
    report = fetch_voc_lt(root, mirror=server.url, **QUICK)
    assert report.ok, report
    data = ltml.load("voc-lt", root=root)
    assert (labels_of(data.train), labels_of(data.test)) == VOC_ROWS
    top = root if devkit else root / "VOCdevkit"
    assert sorted(path.name for path in top.iterdir()) == ["VOC2007", "VOC2012", "longtail2012"]
    assert (root / "VOCdevkit").exists() != devkit
    assert not list(root.rglob("*.tar")) + list(root.rglob("*.part"))
    assert not list(root.rglob("SegmentationClass"))
    asked = len(server.requests)
    assert fetch_voc_lt(root, mirror=server.url, **QUICK).ok
    assert len(server.requests) == asked == 3
    assert "everything is there" in str(plan("voc-lt", root))


def test_voc_lt_goes_on(voc, server, tmp_path):
    """A broken archive leaves the rest, and the next call fetches only what is missing."""
    train, test = (path_of(remote.url) for remote in voc.archives)
    whole = server.files[test]
    server.files[test] = Served(whole.body, cut=5000, ranges=False)
    with pytest.raises(InputError, match=r"VOCtest.* failed: the connection was cut off at 5,000"):
        fetch_voc_lt(tmp_path, mirror=server.url, retries=1, **QUICK)
    assert (tmp_path / "VOCtrainval_11-May-2012.tar").exists()
    server.files[test] = whole
    server.requests.clear()
    report = fetch_voc_lt(tmp_path, mirror=server.url, keep_archives=True, **QUICK)
    assert report.ok
    assert server.requests == [(test, "bytes=5000-")]
    assert len(list(tmp_path.glob("*.tar"))) == 2
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages/2008_000002.jpg").unlink()
    (tmp_path / "VOCtrainval_11-May-2012.tar").unlink()
    assert fetch_voc_lt(tmp_path, mirror=server.url, **QUICK).ok
    assert server.requests[1:] == [(train, None)]


def test_voc_lt_wrong_files(voc, server, tmp_path):
    listing = path_of(voc.id_list.url)
    good = server.files[listing]
    for bad in (b"2008_000001\n", b"\x80\x04\x95pickle", b"", b"<html>", b"222564\n1\n"):
        server.files[listing] = Served(bad)
        with pytest.raises(InputError, match=r"img_id.txt (sent )?(is |failed)"):
            fetch_voc_lt(tmp_path, mirror=server.url, **QUICK)
        assert not list(tmp_path.rglob("img_id.txt*"))
    server.files[listing] = good
    archive = path_of(voc.archives[0].url)
    server.files[archive] = Served(server.files[archive].body[::-1])
    for path in tmp_path.glob("*.tar*"):
        path.unlink()
    with pytest.raises(InputError, match=r"VOCtrainval.* sent has the md5"):
        fetch_voc_lt(tmp_path, mirror=server.url, **QUICK)
    assert not (tmp_path / "VOCdevkit/VOC2012").exists()
    mine = tmp_path / "VOCdevkit/longtail2012/img_id.txt"
    mine.write_text("2008_000001\n")
    with pytest.raises(InputError, match=r"img_id.txt holds 1 ids, not the published 3; delete it"):
        fetch_voc_lt(tmp_path, mirror=server.url, **QUICK)
    assert mine.read_text() == "2008_000001\n"


def test_roots(voc, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        plan("voc-lt", tmp_path / "file")
    (tmp_path / "VOC2012/JPEGImages").mkdir(parents=True)
    with pytest.raises(InputError, match="is one VOC tree; give the folder above"):
        plan("voc-lt", tmp_path / "VOC2012")
    for call in (plan, lambda name, root: check(root, name)):
        with pytest.raises(InputError, match="choose from voc-lt, coco-lt"):
            call("imagenet-lt", tmp_path)


COCO_ROWS = ({9: [0, 79], 25: [11], 30: []}, {139: [0, 5], 285: []})


def instances(rows, split, first=False, **change):
    """A COCO file; training has one image more than the split."""
    ids = sorted(
        {1, *(i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))}
    )
    images, boxes = [], []
    for image, row in {**rows, **({77: [3]} if first else {})}.items():
        name = f"{image:012}.jpg"
        url = f"http://images.cocodataset.org/{split}/{name}"
        entry = dict(id=image, file_name=name, width=8, height=6, coco_url=url)
        images.append(entry | change)
        boxes += [dict(image_id=image, category_id=ids[c], bbox=[0, 0, 2, 2]) for c in row]
    categories = [dict(id=i, name=name) for i, name in zip(ids, COCO_CLASSES, strict=True)]
    boxes = [dict(id=i, **box) for i, box in enumerate(boxes)]
    return json.dumps(dict(images=images, annotations=boxes, categories=categories))


@pytest.fixture
def coco(server, monkeypatch):
    """The server as a mirror of a small COCO-LT."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("annotations/captions_train2017.json", "{}")
        for split, rows in zip(("train2017", "val2017"), COCO_ROWS, strict=True):
            text = instances(rows, split, first=split == "train2017")
            archive.writestr(f"annotations/instances_{split}.json", text)
            for image in rows:
                path = f"/images.cocodataset.org/{split}/{image:012}.jpg"
                server.files[path] = Served(picture(seed=image))
    facts = facts_of(COCO_LT, COCO_ROWS, archives=[file.getvalue()])
    monkeypatch.setitem(published.BENCHMARKS, "coco-lt", facts)
    server.files[path_of(facts.archives[0].url)] = Served(file.getvalue())
    server.files[path_of(facts.id_list.url)] = Served(b"25\n9\n30\n")
    return facts


def test_coco_lt(coco, server, tmp_path):
    report = fetch_coco_lt(tmp_path, mirror=server.url, **QUICK)
    assert report.ok, report
    data = ltml.load("coco-lt", root=tmp_path)
    assert labels_of(data.train) == {
        f"train2017/{image:012}.jpg": COCO_ROWS[0][image] for image in (25, 9, 30)
    }
    assert len(data.test) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotations", "longtail2017", "train2017", "val2017"
    ]  # fmt: skip
    assert len(list((tmp_path / "annotations").iterdir())) == 2  # no captions
    asked = len(server.requests)
    (tmp_path / "val2017/000000000139.jpg").unlink()
    assert "1 images" in str(plan("coco-lt", tmp_path))
    assert fetch_coco_lt(tmp_path, mirror=server.url, **QUICK).ok
    assert server.requests[asked:] == [("/images.cocodataset.org/val2017/000000000139.jpg", None)]


def test_coco_lt_into_images(coco, server, tmp_path):
    """Where images/train2017 is used already, what is missing joins it."""
    (tmp_path / "images/train2017").mkdir(parents=True)
    (tmp_path / "images/val2017").mkdir(parents=True)
    assert fetch_coco_lt(tmp_path, mirror=server.url, **QUICK).ok
    assert len(ltml.load("coco-lt", root=tmp_path).train) == 3
    assert not (tmp_path / "train2017").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (picture(6, 8), "has 6 x 8 pixels, not 8 x 6"),
        (picture()[:-40], "cannot be decoded"),
        (b"<html>log in</html>", "cannot be decoded"),
    ],
)
def test_coco_lt_bad_image(coco, server, tmp_path, body, said):
    path = "/images.cocodataset.org/val2017/000000000285.jpg"
    server.files[path] = Served(body)
    with pytest.raises(InputError, match=f"000285.jpg sent is not what it should be: .*{said}"):
        fetch_coco_lt(tmp_path, mirror=server.url, **QUICK)
    assert [path.name for path in (tmp_path / "val2017").iterdir()] == ["000000000139.jpg"]


@pytest.mark.parametrize(
    "url",
    ["http://evil.example/x.jpg", "file:///etc/passwd", 3, "http://images.cocodataset.org.evil/x"],
)
def test_coco_lt_images_come_from_coco(coco, server, tmp_path, url):
    (tmp_path / "annotations").mkdir()
    for split, rows in zip(("train2017", "val2017"), COCO_ROWS, strict=True):
        path = tmp_path / f"annotations/instances_{split}.json"
        path.write_text(instances(rows, split, coco_url=url))
    with pytest.raises(InputError, match=r"has the coco_url .*, not one of http"):
        fetch_coco_lt(tmp_path, **QUICK, mirror=server.url)


@pytest.mark.parametrize("name", ["voc-lt", "coco-lt"])
def test_commands(name, voc, coco, server, tmp_path, capsys):
    root = tmp_path / "data"
    args = ["data", name, "--root", str(root), "--mirror", server.url, "--quiet"]
    assert main([*args, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert not root.exists()
    assert server.requests == []
    for remote in published.BENCHMARKS[name].archives:
        assert path_of(remote.url) in said
        assert f"{remote.size:,} bytes" in said
    assert "in all " in said
    assert main([*args, "--connections", "2"]) == 0
    assert f"ltml train --data {name} --root {root}" in capsys.readouterr().out
    check = ["data", "check", "--data", name, "--root", str(root), "--decode", "--quiet"]
    assert main(check) == 0
    assert capsys.readouterr().out.count("  ok ") == 8
    next(path for path in root.rglob("*.jpg") if "other" not in path.name).write_bytes(b"")
    assert main(check) == 2
    printed = capsys.readouterr()
    assert " is empty" in printed.out
    assert f"differs from the published {name} in 1 point" in printed.err


def test_dry_run_of_the_real_ones(tmp_path):
    assert plan("voc-lt", tmp_path / "new").size == 2_450_659_840
    said = str(plan("coco-lt", tmp_path / "new"))
    assert "6,909 images" in said
    assert "in all 6,911 files, about 1.38 GB" in said


# --- checking trees built from the real label lists -----------------------------------------------


@pytest.fixture(scope="module")
def voc_tree(shared_data, tmp_path_factory):
    """VOC-LT as it is, with one tiny photo in the place of all."""
    root = tmp_path_factory.mktemp("voc")
    photo = root / "photo.jpg"
    photo.write_bytes(picture())
    train, test = label_lists(shared_data, "voc_lt")
    for year, rows in (("VOC2012", train), ("VOC2007", test)):
        tree = root / "VOCdevkit" / year
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tree / folder).mkdir(parents=True)
        for image, row in rows:
            name = Path(image).stem
            (tree / f"Annotations/{name}.xml").write_bytes(
                annotation(*(VOC_CLASSES[c] for c in row))
            )
            os.link(photo, tree / f"JPEGImages/{name}.jpg")
    ids = [[Path(image).stem for image, _ in rows] for rows in (train, test)]
    (tree / "ImageSets/Main/test.txt").write_text("\n".join(ids[1]) + "\n")
    (root / "VOCdevkit/longtail2012").mkdir()
    (root / "VOCdevkit/longtail2012/img_id.txt").write_text("\n".join(ids[0]) + "\n")
    return root


@pytest.fixture(scope="module")
def coco_tree(shared_data, tmp_path_factory):
    """COCO-LT as it is, with one tiny photo in the place of all."""
    root = tmp_path_factory.mktemp("coco")
    photo = root / "photo.jpg"
    photo.write_bytes(picture())
    (root / "annotations").mkdir()
    (root / "longtail2017").mkdir()
    splits = zip(("train2017", "val2017"), label_lists(shared_data, "coco_lt"), strict=True)
    for split, rows in splits:
        (root / split).mkdir()
        rows = {int(Path(image).stem): row for image, row in rows}
        text = instances(rows, split, first=split == "train2017")
        (root / f"annotations/instances_{split}.json").write_text(text)
        for image in rows:
            os.link(photo, root / f"{split}/{image:012}.jpg")
        if split == "train2017":
            text = "\n".join(map(str, rows)) + "\n"
            (root / "longtail2017/img_id.pkl").write_text(text)  # plain text all the same
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


def test_real_voc_lt(voc_tree):
    report = check(voc_tree, "voc-lt", decode=True, progress=False)
    assert report.ok
    assert report.problems == []
    assert len(ltml.load("voc-lt", root=voc_tree).train) == 1142
    said = str(report)
    for text in ("the published 1,142", "1,142 of 1,142", "the published 4,952", "4,952 of 4,952",
                 "6 head, 6 medium, 8 tail", "complete; train on it"):  # fmt: skip
        assert text in said
    assert "everything is there" in str(plan("voc-lt", voc_tree))


def test_real_coco_lt(coco_tree):
    report = check(coco_tree, "coco-lt", progress=False)
    assert report.ok, report
    said = str(report)
    for text in ("the published 1,909", "1,909 of 1,909", "5,000 of 5,000",
                 "22 head, 33 medium, 25 tail", "without a label: 48"):  # fmt: skip
        assert text in said


def wrong(report):
    assert not report.ok
    return [finding.what for finding in report.findings if not finding.ok]


def test_damaged_images(voc_tree, coco_tree, changed):
    missing = voc_tree / "VOCdevkit/VOC2007/JPEGImages/000003.jpg"
    changed(missing, None)
    empty = voc_tree / "VOCdevkit/VOC2012/JPEGImages/2008_000023.jpg"
    changed(empty, b"")
    report = check(voc_tree, "voc-lt")
    assert wrong(report) == ["training images", "test images", "test labels"]
    assert f"has no image {missing}" in str(report)
    assert "test images: 4,951 of 4,952" in str(report)
    assert f"{empty} is empty" in str(report)
    for number in range(12):
        changed(sorted((coco_tree / "val2017").iterdir())[number], b"no photo")
    report = check(coco_tree, "coco-lt", decode=True, progress=False)
    assert wrong(report) == ["test images"]
    assert "4,988 of 5,000" in str(report)
    assert len(report.problems) == 13
    assert "and 2 more" in str(report)
    assert "and 2 more" not in report.text_of(most=None)
    assert check(coco_tree, "coco-lt").ok  # that they are no photos is seen by decoding alone


def test_damaged_lists(voc_tree, coco_tree, changed):
    listing = voc_tree / "VOCdevkit/longtail2012/img_id.txt"
    changed(listing, b"".join(listing.read_bytes().splitlines(keepends=True)[:1000]))
    report = check(voc_tree, "voc-lt")
    assert wrong(report) == ["training ids", "training images", "training labels", "groups"]
    assert "img_id.txt holds 1,000 ids, not the published 1,142" in str(report)
    listing = coco_tree / "longtail2017/img_id.pkl"
    ids = listing.read_bytes().splitlines()
    changed(listing, b"\n".join([b"77", *ids[1:]]))
    report = check(coco_tree, "coco-lt")
    assert "1,909 ids, some of them not those of the published 1,909" in str(report)
    changed(listing, b"222564\n185989\n375245\n")
    report = check(coco_tree, "coco-lt")
    assert "is longtail2017img_id.pkl, another split's list" in str(report)
    assert "image 222564 is not there" in str(report)
    changed(listing, None)
    assert "list of training ids is missing; put it at" in str(check(coco_tree, "coco-lt"))


def test_damaged_labels(voc_tree, coco_tree, changed):
    tree = voc_tree / "VOCdevkit/VOC2007"
    changed(tree / "Annotations/000003.xml", annotation("cat"))
    changed(tree / "Annotations/000004.xml", annotation("unicorn"))
    changed(tree / "Annotations/000001.xml", b"<annotation><object>")
    changed(tree / "Annotations/000002.xml", None)
    report = check(voc_tree, "voc-lt")
    assert wrong(report) == ["test images", "test labels"]
    said = str(report)
    assert "000004.xml: class 'unicorn' is not VOC's" in said
    assert "000001.xml is not well-formed XML" in said
    assert f"has no annotation {tree}/Annotations/000002.xml" in said
    assert "cat: 333 images, not 332" in said
    path = coco_tree / "annotations/instances_train2017.json"
    dataset = json.loads(path.read_text())
    dataset["annotations"] = dataset["annotations"][:-100]
    changed(path, json.dumps(dataset).encode())
    assert "training labels" in wrong(check(coco_tree, "coco-lt"))
    dataset["categories"][3]["name"] = "motorbike"
    changed(path, json.dumps(dataset).encode())
    report = check(coco_tree, "coco-lt")
    assert wrong(report) == ["training classes"]
    assert "motorbike" in str(report)
    changed(path, b'{"images": [')
    assert "is not JSON" in str(check(coco_tree, "coco-lt"))


def test_nothing_there(tmp_path):
    for name in ("voc-lt", "coco-lt"):
        report = check(tmp_path, name)
        assert wrong(report) == ["training split", "test split"]
        assert f"ltml data {name} --root {tmp_path}" in str(report)
    (tmp_path / "VOC2007/ImageSets").mkdir(parents=True)
    assert "has no VOC2012" in str(check(tmp_path, "voc-lt"))
    with pytest.raises(InputError, match="is not a folder"):
        check(tmp_path / "none", "voc-lt")


def test_images(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture())
    check_image(tmp_path / "a.jpg", (8, 6))
    with pytest.raises(InputError, match="has 8 x 6 pixels, not 6 x 8"):
        check_image(tmp_path / "a.jpg", (6, 8))
    with pytest.raises(InputError, match="cannot be decoded"):
        check_image(tmp_path / "b.jpg")
