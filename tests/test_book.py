"""The course as a site: no broken link, no figure missing, and nothing fetched by a reader."""

import importlib.util
import io
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
from PIL import Image, ImageStat

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


def test_the_address_is_that_of_the_repository(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("address", ROOT / "book" / "address.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/ltml")
    assert module.repository(tmp_path) == "somebody/ltml"
    monkeypatch.setenv("GITHUB_REPOSITORY", "")
    assert module.repository(tmp_path) is None
    monkeypatch.delenv("GITHUB_REPOSITORY")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert module.repository(tmp_path) is None
    setting = ["git", "-C", tmp_path, "config", "remote.origin.url"]
    for origin, wanted in {
        "git@github.com:any-body/l.t.git": "any-body/l.t",
        "https://github.com/somebody/ltml": "somebody/ltml",
        "https://example.org/somebody/ltml": None,
    }.items():
        subprocess.run([*setting, origin], check=True)
        assert module.repository(tmp_path) == wanted


def test_every_notebook_has_its_page_and_slides(site, pages):
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        page = site / path.relative_to(ROOT).with_suffix(".html")
        assert (page in pages) == ("masters" not in path.parts)  # which hold the answers
    taught = pages[site / "teaching.html"].links
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        slides = f"slides/{path.stem}.html"
        assert site / slides in pages
        assert slides in taught


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
        plots = r"^(?:    )?(?:[\w, ]+ = )?(?:plots\.(?!style)\w+|plt\.subplots)\("
        drawn = sum(bool(re.search(plots, each, re.MULTILINE)) for each in code)
        assert text.count('src="../_images/') >= drawn > 0, path.name
        live = sum(bool(re.search(r"widgets\.(?!predict\b)\w+\(", each)) for each in code)
        figures = re.findall(r'"live-figure".*?<script type="application/json">(.*?)</script', text)
        assert len(figures) + text.count('class="ltml-explorer') >= live, path.name
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

        def request(asked):
            if urlsplit(asked.url).hostname not in (None, "", "127.0.0.1"):
                said.append(f"asks for {asked.url}")

        def opened(name, address=None, **look):
            look = {"viewport": {"width": 1400, "height": 1000}} | look
            page = browser.new_page(offline=not address, **look)
            page.on("console", listen)
            page.on("request", request)
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


LOOKS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}
# All that the figures of an explorer are drawn from, as text.
DRAWN = """(box) => JSON.stringify([...box.querySelectorAll(".plot")].map((plot) =>
    plot.data?.map(({ x, y, z, text }) =>
        [x, y, z, text].map((v) => v?.bdata ?? Array.from(v ?? [])))))"""
TIMED = """(box) => {
    window.took = [];
    let began;
    const begin = () => { began = performance.now(); };
    for (const kind of ["input", "change"]) box.addEventListener(kind, begin, true);
    for (const plot of box.querySelectorAll(".plot"))
        plot.on?.("plotly_afterplot", () => window.took.push(performance.now() - began));
}"""


def explorers(pages):
    """Pages of notebooks that were run and hold an explorer."""
    held = (path for path, page in pages.items() if 'class="ltml-explorer' in page.text)
    return sorted(path for path in held if path.parent.name == "notebooks")


@pytest.mark.parametrize("device", LOOKS)
def test_explorers_answer_without_a_kernel(site, pages, open_page, device):
    assert len(explorers(pages)) >= (10 if SITE else 1)
    moved, took = [], {}
    for path in explorers(pages):
        page = open_page(path.relative_to(site), **LOOKS[device])
        width = LOOKS[device]["viewport"]["width"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        boxes = page.locator(".ltml-explorer")
        for i in range(boxes.count()):
            box = boxes.nth(i)
            for plot in box.locator(".plot:visible").all():
                plot.scroll_into_view_if_needed()
                plot.locator(".main-svg").first.wait_for()
            box.evaluate(TIMED)
            sliders = [s for s in box.locator("input[type=range]:visible").all() if is_free(s)]
            lists = [
                s for s in box.locator("select:visible").all() if s.locator("option").count() > 1
            ]
            assert sliders or lists, (path.name, i)
            answered = 0
            for control in sliders or lists:
                control.scroll_into_view_if_needed()
                for to in (0.15, 0.85, 0.5):
                    before = box.evaluate(DRAWN)
                    move(page, control, to, device)
                    answered += changed(page, box, before)
                key = (path.stem, i, control.get_attribute("data-key"))
                found = page.evaluate("window.took.splice(0)")
                took |= {key: min(found)} if found and sliders else {}
            assert answered, (path.name, i)
            moved.append((path.stem, i))
        page.close()
    assert moved
    assert max(took.values()) < 200, took  # milliseconds from a move to the figure


def changed(page, box, before):
    """Whether an explorer's figures change; those out of sight do so once they are looked at."""
    for place in [None, *box.locator(".plot:visible").all()]:
        if place:
            place.scroll_into_view_if_needed()
        for _ in range(5):
            page.wait_for_timeout(100)
            if box.evaluate(DRAWN) != before:
                return True
    return False


def is_free(slider):
    return slider.is_enabled() and slider.get_attribute("min") != slider.get_attribute("max")


def move(page, control, to, device):
    """Put a slider to a place, or choose from a list, as a hand does."""
    if control.evaluate("(c) => c.tagName") == "SELECT":
        options = control.locator("option:not([disabled])").count()
        control.select_option(index=round(to * (options - 1)))
        return
    box = control.bounding_box()
    place = box["x"] + to * box["width"], box["y"] + box["height"] / 2
    (page.touchscreen.tap if device == "phone" else page.mouse.click)(*place)


def test_a_figure_waits_for_a_prediction(open_page):
    page = open_page("notebooks/00_start_here.html")
    questions = page.locator(".ltml-predict")
    assert questions.count() >= 3
    for i in range(questions.count()):
        question = questions.nth(i)
        figure = question.locator("xpath=ancestor::*[contains(@class, 'cell_output')]//img").first
        assert not figure.is_visible()
        if question.locator("form").count():
            question.locator("input").fill("-1")
            question.locator("button").click()
        else:
            question.locator("details.wrong summary").first.click()
        figure.wait_for()
        assert "Not so: " in question.text_content()
        assert f"0 of {i + 1} predicted right" in question.locator(".tally").text_content()
    # The code that asks holds the replies, and is folded away.
    folded = page.locator(".cell.tag_hide-input:has(.ltml-predict)")
    assert folded.count() == questions.count()


def test_no_figure_is_white_on_a_dark_page(open_page):
    page = open_page("notebooks/00_start_here.html", color_scheme="dark")
    for choice in page.locator(".ltml-predict details.right summary").all():
        choice.click()
    kinds = ".cell:not(.tag_pictures) .cell_output img, .live-figure, .ltml-explorer .plot"
    figures = page.locator(kinds).locator("visible=true")
    assert figures.count() > 5
    for i in range(figures.count()):
        figures.nth(i).scroll_into_view_if_needed()
        page.wait_for_timeout(200)
        pixels = Image.open(io.BytesIO(figures.nth(i).screenshot())).convert("L")
        assert ImageStat.Stat(pixels).median[0] < 80, i


def test_a_page_prints_with_all_its_figures(open_page):
    page = open_page("notebooks/00_start_here.html")
    page.emulate_media(media="print")
    for figure in page.locator(".cell_output img").all():
        assert figure.is_visible()  # those too that wait for a prediction
    assert not page.locator(".bd-sidebar-primary").is_visible()
    assert len(page.pdf(format="A4")) > 200_000


def test_formulas_are_set(open_page):
    page = open_page("api/losses.html")
    page.locator("mjx-container").first.wait_for()
    assert page.locator("mjx-merror").count() == 0


@pytest.fixture
def address(site):
    """The site, served: a search reads files of its own, which a page from the disk may not."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_search_finds_and_quotes(address, open_page):
    page = open_page("search.html?q=entropy", address)
    found = page.locator("#search-results li", has=page.locator("a[href*='api/sampling']"))
    found.locator("p.context").first.wait_for()
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("term", ["AP", "ap", "DGB", "logit", "tail"])
def test_search_finds_short_terms_in_the_glossary_first(address, open_page, term):
    page = open_page(f"search.html?q={term}", address)
    first = page.locator("#search-results li a").first
    first.wait_for()
    page.wait_for_load_state("networkidle")
    assert "glossary.html" in first.get_attribute("href")
