"""Labels that look wrong, ranked, shown and corrected."""

import base64
import html.parser
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from ltml import InputError, LabelMatrix, LongTailData, Split
from ltml.cli import main
from ltml.data.corrections import LabelTable
from ltml.data.folder import read_label_csv
from ltml.plots.suspects import write_suspects
from ltml.training.bank import Bank
from ltml.training.suspects import left_out, suspects

N, C, D = 400, 6, 40


@pytest.fixture(scope="module")
def made():
    """Features of images that are sums of their classes' directions, and noise; true labels."""
    rng = np.random.default_rng(0)
    true = rng.random((N, C)) < [0.5, 0.3, 0.15, 0.1, 0.05, 0.05]
    directions = rng.normal(size=(C, D))
    x = true @ directions + 0.7 * rng.normal(size=(N, D)) + 2
    wrong = np.where(true, rng.random((N, C)) < 0.15, rng.random((N, C)) < 0.01)
    return torch.from_numpy(x), true, wrong


@pytest.fixture(scope="module")
def bank(made):
    x, true, wrong = made
    labels = LabelMatrix((true ^ wrong).astype(int), list("abcdef"))
    split = Split(x.half().reshape(N, 1, D, 1, 1), labels, [f"{i}.jpg" for i in range(N)])
    return Bank("made", split, split)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos in two colours, labelled so, with two mistakes; no other table."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    rows = ["image,labels"]
    for i in range(40):
        red = i % 2
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., 0 if red else 2] += 180
        Image.fromarray(pixels).save(root / f"{i}.jpg")
        labels = ["red" if red != (i in (4, 9)) else "blue"]
        rows.append(f"{i}.jpg,{' '.join([*labels, 'small'][: 1 + (i % 3 == 0)])}")
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    return root


def test_injected_errors_are_found(made, bank):
    """At chance both areas would be 0.5."""
    _, _, wrong = made
    table = suspects(bank).table()
    where = table.image.str.removesuffix(".jpg").astype(int), table["class"].map("abcdef".index)
    table["wrong"] = wrong[where]
    for given, least in ((0, 0.9), (1, 0.9)):
        part = table[table.given == given]
        assert roc_auc_score(part.wrong, part.suspicion) > least
        # Among labels of one kind, the order is that of the raw score.
        assert (part.score.diff().dropna() * (1 if given else -1) >= -1e-12).all()
    # Of the most suspect, in one list, most are wrong; at chance 4 % would be.
    assert table.wrong[: wrong.sum()].mean() > 0.5
    assert table.suspicion.between(0, 1).all()
    assert table.suspicion.is_monotonic_decreasing


def test_errors_that_are_not_there_are_not_found(made):
    """The same measure is at chance where wrong labels are unrelated to the features."""
    x, true, wrong = made
    shuffled = x[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
    given = true ^ wrong
    score = left_out(shuffled, torch.from_numpy(given).float())[:, 0]
    absent = ~given[:, 0]  # of one class, since commoner ones also lack more labels
    assert 0.3 < roc_auc_score(wrong[absent, 0], score[absent]) < 0.7


def test_scores_are_those_of_fits_without_the_image(made):
    x, true, _ = made
    x = torch.nn.functional.normalize(x, dim=1)
    found = left_out(x, torch.from_numpy(true).float(), shrinkage=0.3)
    strength = N * 0.3 * np.trace(np.cov(x.numpy().T, bias=True)) / D
    for i in (0, 17):
        model = Ridge(alpha=strength).fit(np.delete(x.numpy(), i, 0), np.delete(true, i, 0))
        assert np.allclose(found[i], model.predict(x[[i]].numpy())[0], atol=2e-3)


def test_tables_are_narrowed(bank):
    found = suspects(bank)
    whole = found.table()
    assert len(whole) == N * C
    assert (found.table("present").given == 1).all()
    assert set(found.table(classes=["b"])["class"]) == {"b"}
    worst = found.table("absent", per_class=3)
    assert (worst.groupby("class").size() == 3).all()
    pd.testing.assert_frame_equal(found.table(limit=5), whole[:5])
    for options in ({"given": "maybe"}, {"classes": ["x"]}, {"limit": 0}, {"per_class": 0}):
        with pytest.raises(InputError):
            found.table(**options)
    assert "400 images, 6 classes" in repr(found)


def test_unknown_labels_are_ranked_as_probably_present(made):
    x, true, _ = made
    y = true.astype(np.float32)
    hidden = np.random.default_rng(1).random(y.shape) < 0.2
    y[hidden] = np.nan
    split = Split(x.half().reshape(N, 1, D, 1, 1), LabelMatrix(y), [str(i) for i in range(N)])
    table = suspects(Bank("made", split, split)).table("unknown")
    assert len(table) == hidden.sum()
    assert table.given.isna().all()
    i = table.image.astype(int), table["class"].str.removeprefix("class ").astype(int)
    assert roc_auc_score(true[i], table.suspicion) > 0.9


def test_the_commands_rank_show_and_correct(folder, tmp_path, capsys):
    csv, page = tmp_path / "suspects.csv", tmp_path / "page.html"
    args = ["suspects", str(folder), "--backbone", "small", "--weights", "None", "--quiet"]
    for _ in range(2):  # the second replaces what the first wrote
        assert main([*args, "--csv", str(csv), "--page", str(page), "--separator", " "]) == 0
    assert "probably missing:" in capsys.readouterr().out
    table = pd.read_csv(csv)
    assert list(table) == ["image", "class", "given", "score", "suspicion"]
    assert set(table.image[:4]) == {"4.jpg", "9.jpg"}
    corrections, out = tmp_path / "corrections.csv", tmp_path / "corrected.csv"
    corrections.write_text("image,labels\n4.jpg,blue\n9.jpg,red small\n")
    before = (folder / "train.csv").read_text()
    args = ["suspects", str(folder / "train.csv"), "--apply", str(corrections)]
    assert main([*args, "--out", str(out), "--separator", " "]) == 0
    images, labels = read_label_csv(out, separator=" ")
    text = before.replace("4.jpg,red\n", "4.jpg,blue\n", 1)
    assert (folder / "train.csv").read_text() == before
    assert [labels.class_names[c] for c in labels[images.index("9.jpg")]] == ["red", "small"]
    assert len(out.read_text().splitlines()) == len(text.splitlines())
    assert main([*args, "--out", str(folder / "train.csv"), "--separator", " "]) == 2
    assert main([*args, "--separator", " "]) == 2
    assert (folder / "train.csv").read_text() == before
    page.write_text("mine")
    args = ["suspects", str(folder), "--backbone", "small", "--weights", "None", "--quiet"]
    assert main([*args, "--page", str(page), "--separator", " "]) == 2
    assert page.read_text() == "mine"


class Outline(html.parser.HTMLParser):
    """Elements, attributes and the embedded data of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.data, self._inside = [], None, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("type") == "application/json"

    def handle_data(self, data):
        if self._inside:
            self.data = json.loads(data)
            self._inside = False


def test_the_page_needs_nothing_and_escapes_names(tmp_path):
    """Names that would end a script, and a photo named alike."""
    evil, rtl = '</script><script>alert("x")</script>', "‮evil"
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a'b&c.jpg")
    (tmp_path / "train.csv").write_text(
        f'image,labels\n"a\'b&c.jpg","{evil.replace(chr(34), chr(34) * 2)}"\n'
    )
    labels = LabelMatrix([[1, 0]], [evil, rtl])
    split = Split([tmp_path / "a'b&c.jpg"] * 1, labels, ["a'b&c.jpg"])
    maps = replace(split, images=torch.rand(1, 1, 4, 1, 1).half(), originals=split.images)
    found = suspects(Bank("made", maps, maps))
    page = write_suspects(found, tmp_path / "page.html")
    outline = Outline(page.read_text())
    assert [tag for tag, _ in outline.elements].count("script") == 2
    assert not any({"src", "href"} & attrs.keys() for _, attrs in outline.elements)
    assert outline.data["classes"] == [evil, rtl]
    (image,) = outline.data["images"].values()
    picture = base64.b64decode(image["src"].partition(",")[2])
    assert picture[8:12] == b"WEBP"
    assert "http" not in page.read_text()


def test_the_page_knows_the_form_of_the_table(folder, tmp_path):
    found = suspects(folder, backbone="small", weights=None, progress=False, separator=" ")
    table = LabelTable(folder / "train.csv", separator=" ")
    data = Outline(write_suspects(found, tmp_path / "p.html", table=table).read_text()).data
    assert data["form"] == {
        "kind": "cell",
        "label": 1,
        "mark": " ",
        "words": ["blue", "red", "small"],
    }
    assert data["header"] == ["image", "labels"]
    for i, image in data["images"].items():
        assert image["rows"] == table.cells(found.ids[int(i)])


def test_options_are_checked(bank, folder):
    with pytest.raises(InputError, match="separator is an option of a folder"):
        suspects(bank, separator=" ")
    with pytest.raises(InputError, match=r"no val\.csv; there are train\.csv"):
        suspects(folder, train_split="val")
    whole = LongTailData("x", bank.train, bank.test)
    assert suspects(Bank("x", whole.train, whole.test)).score.shape == (N, C)
