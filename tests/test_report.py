import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")

from ltml import InputError, Run
from ltml.report import write_report

RECORDS = Path(__file__).resolve().parents[1] / "figures" / "records"


class Page(HTMLParser):
    """What a page shows and what it asks for."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.asked, self.alts, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.asked += [attrs[key] for key in ("src", "href") if key in attrs]
        if tag == "img":
            self.alts.append(attrs["alt"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_asks_for_nothing_and_reads_without_pictures(tmp_path):
    runs = [Run.load(RECORDS / name) for name in ("baseline", "method")]
    text = write_report(runs, tmp_path / "new" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert {address[:5] for address in page.asked} == {"data:"}
    assert not {"script", "iframe", "link", "object"} & set(page.tags)
    assert "default-src 'none'" in text
    assert len(page.alts) == 3 + 2 * 2
    assert all(page.alts)
    for run in runs:  # the overview's numbers and each class's
        assert f"<td>{100 * run.summary['tail']:.4g}" in text
        assert all(f"<td>{name}</td>" in text for name in run.classes["class"])


def test_the_same_runs_give_the_same_page(tmp_path):
    run = Run.load(RECORDS / "method")
    pages = [write_report([run], tmp_path / name).read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_names_cannot_break_out_of_the_page(tmp_path):
    folder = tmp_path / "<script>alert(1)<&>"
    shutil.copytree(RECORDS / "method", folder)
    for name in ("per_class.csv", "config.json"):
        path = folder / name
        first = Run.load(RECORDS / "method").classes["class"][0]
        path.write_text(re.sub(rf"\b{first}\b", "<img src=x onerror=y>", path.read_text()))
    page = Page(write_report([Run.load(folder)], tmp_path / "r.html").read_text())
    assert "script" not in page.tags
    assert {address[:5] for address in page.asked} == {"data:"}


def test_runs_of_other_classes_stand_on_one_page(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(RECORDS / "method", other)
    table = other / "per_class.csv"
    table.write_text(table.read_text().replace("star", "sun"))
    text = write_report([Run.load(RECORDS / "baseline"), Run.load(other)], tmp_path / "r.html")
    assert len(Page(text.read_text()).alts) == 2 + 2 * 2  # all but the APs side by side


@pytest.mark.parametrize(("runs", "out", "said"), [(0, "r.html", "no run"), (1, ".", "a folder")])
def test_what_cannot_be_written_is_said(tmp_path, runs, out, said):
    runs = [Run.load(RECORDS / "method")][:runs]
    with pytest.raises(InputError, match=said):
        write_report(runs, tmp_path / out)
