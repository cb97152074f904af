"""The course as a site: no broken link, no figure missing, and nothing fetched by a reader."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# A site that `make book` has built; without it, one is built here, and the first notebook run.
SITE = os.environ.get("SITE")
REPOSITORY = os.environ.get("GITHUB_REPOSITORY") or (None if SITE else "somebody/ltml")

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, by attribute, and the ids that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids = set(), set(), set()
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs.get("id"), attrs.get("name")}
        if tag == "a":
            self.links.add(attrs.get("href") or "")
        elif tag == "link" and "stylesheet" in attrs.get("rel", ""):
            self.loads.add(attrs["href"])
        elif attrs.get("src"):
            self.loads.add(attrs["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if SITE:
        return (ROOT / SITE).resolve()
    pytest.importorskip("myst_nb", reason="pip install 'ltml[book]'")
    out = tmp_path_factory.mktemp("book")
    without = "notebooks/0[1-9]* notebooks/1* notebooks/*/*"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-M", "html", "book", out, "-W", "--keep-going"],
        cwd=ROOT,
        env=os.environ | {"BOOK_WITHOUT": without, "GITHUB_REPOSITORY": REPOSITORY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_notebook_has_its_page(site, pages):
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        page = site / path.relative_to(ROOT).with_suffix(".html")
        assert (page in pages) == ("masters" not in path.parts)  # which hold the answers


def test_no_link_is_broken(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links | page.loads:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            known = pages[target].ids | {""} if target in pages else {fragment}
            if not target.is_file() or fragment not in known:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken


def test_pages_fetch_nothing(pages):
    fetched = {link for page in pages.values() for link in page.loads if urlsplit(link).netloc}
    assert not fetched


def test_every_figure_is_in_its_page(site, pages):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        text = pages[site / path.relative_to(ROOT).with_suffix(".html")].text
        if not SITE and path.name[:2] != "00":
            continue
        plots = r"^ *(?:[\w, ]+ = )?(?:plots\.(?!style)\w+|plt\.subplots)\("
        drawn = sum(bool(re.search(plots, each, re.MULTILINE)) for each in code)
        assert text.count('src="../_images/') >= drawn > 0, path.name
        live = sum(bool(re.search(r"widgets\.(?!predict\b)\w+\(", each)) for each in code)
        figures = re.findall(r'"live-figure".*?<script type="application/json">(.*?)</script', text)
        assert len(figures) >= live > 0, path.name
        assert all(json.loads(figure)["data"] for figure in figures)


def test_reference_has_every_public_name(site):
    inventory = pytest.importorskip("sphinx.util.inventory").InventoryFile
    with (site / "objects.inv").open("rb") as file:
        known = inventory.load(file, "", lambda *parts: "/".join(parts))
    known = {name for kind in known.values() for name in kind}
    public = json.loads((ROOT / "tests" / "public_api.json").read_text())
    assert {name for name in public if not name.endswith("()")} <= known


@pytest.mark.skipif(not REPOSITORY, reason="a site of no repository has no Colab buttons")
def test_notebooks_open_on_colab(pages, site):
    links = pages[site / "notebooks" / "00_start_here.html"].links
    colab = f"https://colab.research.google.com/github/{REPOSITORY}/blob/"
    assert any(link.startswith(colab) and link.endswith("00_start_here.ipynb") for link in links)


@pytest.fixture
def open_page(site):
    """Open a page, from the disk and without network by default; its console holds no error."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    said = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def listen(message):
            if message.type == "error" and "favicon" not in message.location["url"]:
                said.append(message.text)

        def opened(name, address=None):
            page = browser.new_page(offline=not address, viewport={"width": 1400, "height": 1000})
            page.on("console", listen)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(f"{address or site.as_uri()}/{name}")
            return page

        yield opened
        browser.close()
    assert said == []


def test_live_figures_answer_to_the_pointer(open_page):
    page = open_page("notebooks/00_start_here.html")
    mark = page.locator(".live-figure .scatterlayer .point").first
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 1, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "images)" in page.locator(".live-figure .hoverlayer .hovertext").first.text_content()
    assert page.locator(".live-figure:not(:has(.main-svg))").count() == 0


def test_formulas_are_set(open_page):
    page = open_page("api/losses.html")
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-merror").count() == 0


def test_search_finds_and_quotes(site, open_page):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        page = open_page("search.html?q=entropy", address)
        found = page.locator("#search-results li", has=page.locator("a[href*='api/sampling']"))
        found.locator("p.context").first.wait_for()
        page.wait_for_load_state("networkidle")
        server.shutdown()
