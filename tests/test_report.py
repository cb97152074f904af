"""The page of a report, as a file: what is in it, and that nothing can get out of it or in."""

import base64
import gzip
import hashlib
import json
import re
import shutil
import tempfile
import webbrowser
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs
from synthetic import write_run

import ltml
from ltml import ClassAwareSampler, GroupSampler, InputError, LabelMatrix, LongTailData, Run, Split
from ltml.cli import main
from ltml.plots import frames
from ltml.plots.report import open_report, write_report
from ltml.runs.scores import add_scores

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


class Page(HTMLParser):
    """What a page holds and what it asks for."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.asked, self.scripts, self.policy, self.open = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.asked += [attrs[key] for key in ("src", "href", "action") if key in attrs]
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        if tag == "script":
            self.scripts.append([attrs, ""])
        if tag not in ("meta", "input", "option"):
            self.open.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    @property
    def data(self):
        (found,) = [text for attrs, text in self.scripts if attrs.get("id") == "data"]
        return json.loads(found)


@pytest.fixture(scope="module")
def runs():
    return [Run.load(RECORDS / name) for name in ("baseline", "method")]


def page_of(runs, path, **options):
    return Page(write_report(runs, path, **options).read_text(encoding="utf-8"))


def test_it_asks_for_nothing_and_runs_only_its_own_script(runs, tmp_path):
    page = page_of(runs, tmp_path / "new" / "report.html")
    assert page.open == []
    assert page.asked == []
    assert not {"iframe", "link", "object", "img"} & set(page.tags)
    policy = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert policy["default-src"] == "'none'"
    scripts = [text for attrs, text in page.scripts if not attrs]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert policy["script-src"].split() == [f"'sha256-{each}'" for each in hashes]


def test_its_numbers_are_those_of_the_files(runs, tmp_path):
    data = page_of(runs, tmp_path / "r.html").data
    table = pd.read_csv(RECORDS / "method" / "per_class.csv")
    entry = data["runs"][1]
    names = data["tables"][entry["table"]]["names"]
    for short, column in (("pos", "grad_pos"), ("neg", "grad_neg"), ("ap", "ap")):
        values = np.frombuffer(base64.b64decode(entry[short]), "<f4").reshape(-1, 20)
        grid = table.pivot(index="epoch", columns="class", values=column)[names]
        assert np.allclose(values, grid, rtol=1e-6)
    assert len(entry["said"]) == 1 + len(values)
    overview = dict(
        zip(
            [name for name, _ in data["overview"]["columns"]],
            data["overview"]["rows"][1],
            strict=True,
        )
    )
    assert overview["tail"] == pytest.approx(100 * runs[1].summary["tail"], abs=0.01)


def test_the_same_runs_give_the_same_page(runs, tmp_path):
    pages = [write_report(runs, tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_names_cannot_break_out_of_the_page(tmp_path):
    folder = tmp_path / "<script>alert(1)<&>{{plotly}}"
    shutil.copytree(RECORDS / "method", folder)
    evil = "</script><img src=x onerror=y>"
    for name in ("per_class.csv", "config.json"):
        path = folder / name
        path.write_text(re.sub(r"\bcrown\b", evil, path.read_text()))
    page = page_of([Run.load(folder)], tmp_path / "r.html")
    assert len(page.scripts) == 3
    assert page.asked == []
    assert evil in page.data["tables"][0]["names"]


def test_seeds_of_one_recipe_are_one_result(tmp_path):
    runs = [Run.load(write_run(tmp_path / f"s{seed}", classes=20, seed=seed)) for seed in (0, 1)]
    runs.append(Run.load(write_run(tmp_path / "other", classes=20, loss="dgb")))
    facts = page_of(runs, tmp_path / "r.html").data["facts"]
    assert [name for name, _ in facts["columns"]] == ["", "s0, s1", "other"]
    rows = {row[0]: row[1:] for row in facts["rows"]}
    tail = 100 * pd.Series([run.summary["tail"] for run in runs])
    assert rows["tail"] == [f"{tail[:2].mean():.1f} ± {tail[:2].std():.1f}", f"{tail[2]:.1f}"]
    assert rows["seeds"] == ["0, 1", "0"]
    assert rows["loss"] == ["bce", "dgb"]
    assert rows["software"] == ["torch 2.6 on cpu"] * 2


def test_runs_of_other_classes_share_the_page(runs, tmp_path):
    other = Run.load(write_run(tmp_path / "other", classes=20))
    data = page_of([*runs, other], tmp_path / "r.html").data
    assert [run["table"] for run in data["runs"]] == [0, 0, 1]


def test_a_run_without_gradients_has_a_page(tmp_path):
    folder = write_run(tmp_path / "run", classes=20, evaluated=False)
    table = pd.read_csv(folder / "per_class.csv")
    table.assign(grad_pos=np.nan, grad_neg=np.nan).to_csv(folder / "per_class.csv", index=False)
    assert page_of([Run.load(folder)], tmp_path / "r.html").data["runs"][0]["said"] == []


def test_both_stages_of_a_training_are_shown():
    run = Run.load(RECORDS.parents[1] / "tests" / "records" / "schema3")
    frame = frames.stages([run])
    own = run.stages[run.stages.classifier == "own"].ap
    shown = frame.set_index(["name", "group"])["mean"]
    assert shown["schema3: own", "mAP"] == pytest.approx(100 * own.mean())
    assert shown["schema3: refit", "mAP"] == pytest.approx(100 * run.summary["mAP"], abs=0.01)


def test_a_probe_has_a_page_without_gradients(tmp_path):
    folder = write_run(tmp_path / "run", classes=20)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps(summary | {"steps": 0}))
    left_out = page_of([Run.load(folder)], tmp_path / "r.html").data["left_out"]
    assert {"gradients", "balancing", "stages"} <= set(left_out)


def test_an_ablation_beside_the_runs_is_shown(tmp_path):
    run = Run.load(write_run(tmp_path / "run", classes=20))
    assert "ablation" in page_of([run], tmp_path / "r.html").data["left_out"]
    shutil.copy(RECORDS.parent / "ablation.csv", tmp_path)
    data = page_of([run], tmp_path / "r.html").data
    assert "ablation" not in data["left_out"]
    table = pd.read_csv(tmp_path / "ablation.csv")
    means = table.groupby(["sampler", "loss", "diversity"]).mAP.mean()
    best = f"{' · '.join(means.idxmax())} for all classes ({means.max():.1f})"
    assert best in data["said"]["ablation"]


def test_class_rates_of_each_sampler_for_given_labels(tmp_path):
    run = Run.load(write_run(tmp_path / "run", classes=20))
    Y = np.random.default_rng(0).random((400, 5)) < [0.5, 0.3, 0.2, 0.04, 0.01]
    labels = LabelMatrix(Y)
    found = page_of([run], tmp_path / "r.html", labels=labels).data["sampling"]["labels"]
    order = [labels.class_names.index(name) for name in found["names"]]
    for entry, sampler in (
        (found["class-aware"], ClassAwareSampler(labels, batch_size=64)),
        (found["ridges"][0], GroupSampler(labels, batch_size=64)),
        (found["ridges"][-1], GroupSampler(labels, batch_size=64, ridge=10)),
    ):
        p = sampler.image_probabilities()
        assert np.allclose(entry["rates"], (p @ Y)[order], rtol=1e-4)
        assert entry["square"] == pytest.approx((p**2).sum())


def test_three_runs_stay_below_eight_megabytes(tmp_path):
    runs = [
        Run.load(write_run(tmp_path / f"r{s}", classes=1203, epochs=30, seed=s)) for s in (0, 1, 2)
    ]
    assert write_report(runs, tmp_path / "r.html").stat().st_size < 8e6


def test_it_opens_in_the_browser(runs, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = open_report(runs[:1])
    assert opened == [path.as_uri()]
    assert path.is_file()


@pytest.mark.parametrize(("count", "out", "said"), [(0, "r.html", "no run"), (1, ".", "a folder")])
def test_what_cannot_be_written_is_said(runs, tmp_path, count, out, said):
    with pytest.raises(InputError, match=said):
        write_report(runs[:count], tmp_path / out)


def test_a_result_of_stages_without_a_group_has_its_figure(tmp_path):
    data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=60)  # no head class
    run = ltml.probe(data, backbone="small", weights=None, out=tmp_path / "run", progress=False)
    page = Page(write_report([run], tmp_path / "page.html").read_text("utf-8"))
    assert "stages" in page.data["figures"]


def test_runs_of_two_data_sets_share_a_page(tmp_path):
    runs = []
    for name, kept in (("a", slice(None)), ("b", slice(0, 10))):
        data = ltml.load("pictograms", scale=0.1, image_size=24, test_images=60)
        parts = [
            Split(part.images, LabelMatrix(part.labels.dense()[:, kept]), part.ids)
            for part in (data.train, data.test)
        ]
        data = LongTailData(name, *parts)
        recipe = ltml.Recipe(steps=1, batch_size=8, warmup=0)
        runs.append(ltml.fit(recipe, data=data, out=tmp_path / name, progress=False))
        ltml.record_features(runs[-1], data=data)
    page = Page(write_report(runs, tmp_path / "page.html").read_text("utf-8"))
    assert [run["title"] for run in page.data["runs"]] == ["a", "b"]
    assert page.data["diversity"]


def with_scores(folder, classes=20, images=60, size=(400, 300)):
    """A run that gets half of its photos wrong; the photos are of much detail."""
    random = np.random.default_rng(0)
    path = write_run(folder / "run", classes=classes, epochs=1)
    names = json.loads((path / "config.json").read_text())["data"]["class_names"]
    files = [str(folder / f"patient {i}.jpg") for i in range(images)]
    for file in files:
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(file)
    targets = (random.random((images, classes)) < 0.5).astype(np.float32)
    logits = random.normal(0, 3, targets.shape).astype(np.float32)
    add_scores(path, names, "test", logits, targets, [Path(f).name for f in files], files)
    return Run.load(path)


def test_by_default_a_page_holds_nothing_of_any_image(tmp_path):
    run = with_scores(tmp_path)
    for args in ([], ["--no-images"]):
        assert main(["report", str(run.path), "--out", str(tmp_path / "r.html"), *args]) == 0
        text = (tmp_path / "r.html").read_text("utf-8")
        assert "patient" not in text
        data = Page(text).data
        assert data["photos"]["photos"] == []
        counts = data["photos"]["runs"]["run"]["counts"]
        assert sum(counts["miss"]) == len(run.mistakes(kind="miss"))
        assert sum(counts["false alarm"]) == len(run.mistakes(kind="false alarm"))


@pytest.mark.slow
def test_thumbnails_stay_within_their_budget(tmp_path):
    run = with_scores(tmp_path, images=400)
    assert main(["report", str(run.path), "--out", str(tmp_path / "r.html"), "--images"]) == 0
    photos = page_of([run], tmp_path / "r.html", images=24).data["photos"]
    assert photos["per_class"] == 24
    thumbs = [photo["src"] for photo in photos["photos"]]
    assert len(thumbs) > 200
    assert all(src.startswith("data:image/webp;base64,") for src in thumbs)
    assert (tmp_path / "r.html").stat().st_size < 5e6
    first = Image.open(BytesIO(base64.b64decode(thumbs[0].split(",")[1])))
    assert max(first.size) >= 48
    worst = run.mistakes(kind="miss", classes=[photos["names"][0]], per_class=12)
    rows = [row for row in photos["runs"]["run"]["rows"] if row[1] == 0 and row[2] == 0]
    assert [photos["photos"][row[0]]["id"] for row in rows] == worst.image.tolist()


def test_beside_photos_the_library_is_packed_and_runs_by_its_hash(tmp_path):
    page = page_of([with_scores(tmp_path, images=10)], tmp_path / "r.html", images=2)
    kept = {attrs.get("id"): text for attrs, text in page.scripts}
    plotly = gzip.decompress(base64.b64decode(kept["plotly"])).decode()
    assert plotly == get_plotlyjs()
    scripts = kept[None], plotly, kept["code"]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    policy = dict(part.strip().split(" ", 1) for part in page.policy.split(";"))
    assert policy["script-src"].split() == [f"'sha256-{each}'" for each in hashes]


def test_photos_without_files_or_scores_are_said(tmp_path, caplog):
    run = with_scores(tmp_path, images=10)
    for file in tmp_path.glob("*.jpg"):
        file.unlink()
    page = page_of([run], tmp_path / "r.html", images=2)
    assert {photo["src"] for photo in page.data["photos"]["photos"]} == {""}
    assert "have no file that can be read" in caplog.text
    bare = Run.load(RECORDS / "method")
    with pytest.raises(InputError, match="no run keeps scores of its images"):
        write_report([bare], tmp_path / "s.html", images=2)


def test_a_page_that_is_opened_again_leaves_one_file(runs, monkeypatch, tmp_path):
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert open_report(runs[:1]) == open_report(runs)
    assert len(list(tmp_path.rglob("*.html"))) == 1
    assert open_report(runs, tmp_path / "mine.html") == tmp_path / "mine.html"
