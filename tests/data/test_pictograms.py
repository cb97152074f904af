import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ltml.core.errors import InputError
from ltml.data import LongTailData, load
from ltml.data.pictograms import GLYPHS, draw_scenes, export_coco

VOC_LT = [775, 479, 249, 240, 154, 100, 82, 64, 48, 34, 29, 20, 17, 14, 11, 8, 7, 6, 5, 4]
SMALL = dict(scale=0.1, image_size=24, test_images=60)


@pytest.fixture(scope="module")
def default() -> LongTailData:
    return load("pictograms")


@pytest.fixture(scope="module")
def voc_sized() -> LongTailData:
    return load("pictograms", scale=1, image_size=16, test_images=20)


def test_the_font_holds_every_glyph():
    import matplotlib
    from matplotlib.ft2font import FT2Font

    font = FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf")
    missing = [name for name, glyph in GLYPHS.items() if font.get_char_index(ord(glyph)) == 0]
    assert missing == []
    assert len(set(GLYPHS.values())) == 20


def test_default_counts_are_twice_those_of_voc_lt(default):
    counts = default.train.labels.counts.tolist()
    assert sorted(counts, reverse=True) == [2 * n for n in VOC_LT]
    assert counts != sorted(counts, reverse=True)
    assert list(default.class_names) == sorted(default.class_names)
    assert len(default.train) == 2284
    assert default.train.images.shape == (2284, 3, 40, 40)
    assert default.train.images.dtype == torch.uint8
    assert default.train.ids[123] == "train/000123"


def test_test_split_is_balanced(default):
    counts = default.test.labels.counts
    assert len(default.test) == 1500
    assert counts.min() >= 100
    assert counts.min() == counts.max()


def test_every_image_of_a_rarer_class_holds_a_head_label(voc_sized, default):
    for data in (voc_sized, default):
        Y = data.train.labels.dense().numpy()
        head = np.argsort(-data.train.labels.counts)[:6]
        assert (Y[:, head].sum(1) >= 1).all()


def test_labels_per_image(default):
    for split in (default.train, default.test):
        sizes = split.labels.dense().sum(1)
        assert 1.9 < split.labels.cardinality < 2.2
        assert (sizes.min(), sizes.max()) == (1, 4)
        assert (sizes == 1).float().mean() > 0.2


def test_cooccurrence_is_not_independent(default):
    labels = default.train.labels
    together = labels.cooccurrence()
    umbrella, cup, flower, aeroplane = map(
        labels.class_names.index, ("umbrella", "cup", "flower", "aeroplane")
    )
    assert together[flower, cup] > 2 * together[aeroplane, cup]  # themes
    rare = np.argsort(labels.counts)[:8]
    assert together[rare, umbrella].mean() > labels.counts[umbrella] / len(labels) + 0.05


@pytest.mark.parametrize("imbalance", [0, 0.5, 1.5])
@pytest.mark.parametrize("scale", [0.01, 0.1, 0.3])
def test_counts_hit_their_targets(imbalance, scale):
    data = load("pictograms", scale=scale, imbalance=imbalance, image_size=16, test_images=10)
    share = np.array(VOC_LT) ** float(imbalance)
    target = np.maximum(1, np.rint(2346 * scale * share / share.sum()))
    np.testing.assert_array_equal(np.sort(data.train.labels.counts)[::-1], target)
    assert (data.train.labels.dense().sum(1) >= 1).all()
    assert data.test.labels.counts.min() >= 1


def test_a_seed_fixes_everything():
    first, again = load("pictograms", **SMALL), load("pictograms", **SMALL)
    other = load("pictograms", **SMALL, seed=1)
    for split in ("train", "test"):
        a, b, c = (getattr(data, split) for data in (first, again, other))
        assert torch.equal(a.images, b.images)
        assert a.labels == b.labels
        assert a.labels != c.labels
        np.testing.assert_array_equal(a.labels.counts, c.labels.counts)
        assert _digests(a).isdisjoint(_digests(c))


def test_no_image_occurs_twice(default):
    train, test = _digests(default.train), _digests(default.test)
    assert (len(train), len(test)) == (2284, 1500)
    assert train.isdisjoint(test)


def _digests(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def test_a_scene_does_not_depend_on_the_others():
    lists = [[0, 3], [5], [7, 8, 9]]
    all_three = draw_scenes(lists, seed=4).images.numpy()
    np.testing.assert_array_equal(draw_scenes(lists[:2], seed=4).images, all_three[:2])
    changed = draw_scenes([[1], [5], [2]], seed=4).images.numpy()
    np.testing.assert_array_equal(changed[1], all_three[1])
    assert not np.array_equal(changed[0], all_three[0])


def test_boxes_hold_exactly_the_drawn_pixels():
    lists = [[c] for c in range(20)] + [[c, (c + 7) % 20, (c + 11) % 20] for c in range(20)]
    drawn = draw_scenes(lists, clutter=0, seed=3)
    empty = draw_scenes([[] for _ in lists], clutter=0, seed=3)  # the same backgrounds
    differs = (drawn.images != empty.images).any(1).numpy()
    assert len(empty.boxes) == 0
    for i, changed in enumerate(differs):
        allowed = np.zeros_like(changed)
        for _, _, x, y, w, h in drawn.boxes[drawn.boxes[:, 0] == i]:
            assert min(x, y) >= 0
            assert max(x + w, y + h) <= 40
            assert min(w, h) >= 4
            allowed[y : y + h, x : x + w] = True
            # Each side of the box touches ink (of this symbol, or of one that overlaps it).
            box = changed[y : y + h, x : x + w]
            assert box[:2].any()
            assert box[-2:].any()
            assert box[:, :2].any()
            assert box[:, -2:].any()
        assert changed.any()
        assert not (changed & ~allowed).any()


def test_boxes_name_the_labels():
    lists = [np.flatnonzero(row) for row in np.random.default_rng(0).random((300, 20)) < 0.1]
    scenes = draw_scenes(lists, seed=1)
    for i, classes in enumerate(lists):
        drawn = scenes.boxes[scenes.boxes[:, 0] == i, 1]
        assert set(drawn) == set(classes) == set(scenes.labels[i])
        assert len(drawn) <= len(classes) + 1
    assert 0.02 < len(scenes.boxes) / scenes.labels.counts.sum() - 1 < 0.3  # some stand there twice


def test_symbols_of_small_scenes_overlap_little():
    boxes = draw_scenes([[1, 4, 9]] * 200, seed=0).boxes
    covered = []
    for i in range(200):
        canvas = np.zeros((40, 40), int)
        for _, _, x, y, w, h in boxes[boxes[:, 0] == i]:
            canvas[y : y + h, x : x + w] += 1
        covered.append((canvas > 1).sum() / (canvas > 0).sum())
    assert np.mean(covered) < 0.1


def test_clutter_adds_distractors_and_moves_no_symbol():
    lists = [[c % 20] for c in range(100)]
    clean, some, lots = (draw_scenes(lists, clutter=c, seed=2) for c in (0, 3, 12))
    np.testing.assert_array_equal(clean.boxes, some.boxes)
    np.testing.assert_array_equal(clean.boxes, lots.boxes)
    changed = [(clean.images != x.images).float().mean() for x in (some, lots)]
    assert 0.05 < changed[0] < changed[1]


def test_symbols_stand_out_from_the_background():
    lists = [[c] for c in range(20)] * 10
    drawn = draw_scenes(lists, clutter=0, seed=5)
    empty = draw_scenes([[] for _ in lists], clutter=0, seed=5)
    pixels = [scenes.images.float().mean(1) for scenes in (drawn, empty)]
    contrast = (pixels[0] - pixels[1]).abs().amax((1, 2)) / 255
    assert contrast.min() > 0.25


def test_labels_are_what_they_were():
    """Published tables rest on them; pixels depend on the version of Pillow, within rounding."""
    data = load("pictograms", **SMALL, clutter=1, imbalance=0.5, seed=3)
    digests = [zlib.crc32(split.labels.dense().numpy().tobytes())
               for split in (data.train, data.test)]  # fmt: skip
    assert digests == [279131287, 1270112293]
    means = [split.images.double().mean().item() for split in (data.train, data.test)]
    assert means == pytest.approx([130.661, 134.631], abs=0.02)


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("scale", 0, "0.01 <= scale <= 100"),
        ("scale", float("nan"), "0.01 <= scale"),
        ("scale", "two", "a number"),
        ("image_size", 15, "16 <= image_size"),
        ("image_size", 40.5, "a whole number"),
        ("imbalance", 2, "0 <= imbalance <= 1.5"),
        ("test_images", 0, "10 <= test_images"),
        ("seed", None, "a whole number"),
        ("train_split", "train", "choose from scale, image_size"),
    ],
)
def test_bad_options_are_named(option, value, remedy, tmp_path):
    for call in (load, lambda _, **options: export_coco(tmp_path / "out", **options)):
        with pytest.raises(InputError, match=f"{option}.*{remedy}") as caught:
            call("pictograms", **{option: value})
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_export_reads_back_with_pycocotools(tmp_path, capsys):
    coco_module = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    out = export_coco(tmp_path / "made" / "here", **SMALL, seed=6)
    assert out == tmp_path / "made" / "here"
    data = load("pictograms", **SMALL, seed=6)
    for name, split in (("train", data.train), ("test", data.test)):
        coco = coco_module.COCO(out / "annotations" / f"instances_{name}.json")
        assert coco.getCatIds() == list(range(1, 21))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(data.class_names)
        entries = coco.loadImgs(sorted(coco.getImgIds()))
        assert len(entries) == len(split) == len(list((out / name).glob("*.png")))
        for i, entry in enumerate(entries):
            boxes = coco.loadAnns(coco.getAnnIds(entry["id"]))
            assert {a["category_id"] - 1 for a in boxes} == set(split.labels[i])
            for a in boxes:
                assert a["area"] == a["bbox"][2] * a["bbox"][3] > 0
                assert a["iscrowd"] == 0
            with Image.open(out / name / entry["file_name"]) as image:
                assert (image.mode, image.size) == ("RGB", (entry["width"], entry["height"]))
                pixels = np.asarray(image).transpose(2, 0, 1)
            np.testing.assert_array_equal(pixels, split.images[i].numpy())
    assert sorted(p.name for p in out.parent.iterdir()) == ["here"]


def test_export_fills_an_empty_folder_and_no_other(tmp_path):
    export_coco(tmp_path, **SMALL)
    before = json.loads((tmp_path / "annotations" / "instances_test.json").read_text())
    with pytest.raises(InputError, match="not an empty folder"):
        export_coco(tmp_path, **SMALL, seed=1)
    file = tmp_path / "train" / "000000.png"
    with pytest.raises(InputError, match="not an empty folder"):
        export_coco(file, **SMALL)
    assert json.loads((tmp_path / "annotations" / "instances_test.json").read_text()) == before


def test_an_export_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out' cannot be written"):
        export_coco(tmp_path / "file" / "out", **SMALL)


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    from ltml.data import pictograms

    write, calls = pictograms._write_coco_split, []

    def fails_at_the_second(*args):
        calls.append(args)
        write(*args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictograms, "_write_coco_split", fails_at_the_second)
    with pytest.raises(InputError, match="No space left on device"):
        export_coco(tmp_path / "out", **SMALL)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []
