"""Slides are the notebooks: all of their text, a few paragraphs at a time, and every figure."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COURSE = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOWN = """
import matplotlib.pyplot as plt
import plotly.graph_objects as go
from ltml import widgets

with widgets.predict("Which is larger?", {"one": "it is not.", "two": "it is."}, answer="two"):
    plt.plot([1, 2])
"""
LIVE = "widgets.explore_gradients([{records!r}])"


@pytest.fixture(scope="module")
def slides():
    for name in ("nbconvert", "nbclient", "sphinx_revealjs"):
        pytest.importorskip(name, reason="pip install 'ltml[book]'")
    spec = importlib.util.spec_from_file_location("slides", ROOT / "book" / "slides.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(text):
    """Text without its white space, and without what slides change of it."""
    text = re.sub(r'<p class="kicker">.*?</p>|\]\([^)]*\)', "", text)
    return "".join(text.split())


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_all_of_the_text_is_on_slides_that_are_not_full(slides, path):
    import nbformat  # takes seconds, which collecting need not wait for

    book = nbformat.read(path, 4)
    deck = slides.deck(book).cells
    before, after = (
        plain("".join(c.source for c in cells if c.cell_type == "markdown"))
        for cells in (book.cells, deck)
    )
    assert after == before
    columns = [c for c in deck if c.metadata.slideshow.slide_type == "slide"]
    headings = "\n".join(c.source for c in book.cells if c.cell_type == "markdown")
    outside = re.sub(r"```.*?```", "", headings, flags=re.DOTALL)
    assert len(columns) == len(re.findall(r"^##? ", outside, re.MULTILINE)) > 3
    for cell in deck:
        if cell.cell_type == "markdown":
            assert cell.source.count("$$") % 2 == cell.source.count("```") % 2 == 0
            assert len(cell.source) < 2 * slides.CHARACTERS


@pytest.mark.slow
def test_slides_show_figures_without_a_kernel_or_a_network(slides, tmp_path, monkeypatch):
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    from nbformat import v4, write

    records = str(ROOT / "figures" / "records" / "baseline")
    cells = [
        v4.new_markdown_cell("# A title\n\nThe force is $p - y$."),
        v4.new_code_cell("pass  # installs"),
        v4.new_code_cell(SHOWN.strip()),
        v4.new_markdown_cell("## Drag\n\nIn [a guide](../book/guide/runs.md)."),
        v4.new_code_cell(LIVE.format(records=records)),
        v4.new_code_cell("short = 1 + 1"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    write(v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "small.ipynb")
    for name, value in slides.kernel().items():
        monkeypatch.setenv(name, value)
    slides.main(str(tmp_path / "site"), str(tmp_path / "small.ipynb"))
    place = tmp_path / "site" / "slides" / "small.html"
    assert 'href="../guide/runs.html"' in place.read_text()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.goto(place.as_uri())
        page.locator("section.present mjx-container").first.wait_for()
        assert page.evaluate("Reveal.getTotalSlides()") == 5

        page.keyboard.press("Space")
        figure = page.locator("section.present img")
        assert page.locator("section.present", has_text="Which is larger?").last.is_visible()
        assert page.locator("section.present .jp-Editor").count() == 0  # what draws it is not shown
        assert not figure.is_visible()
        page.get_by_text("one", exact=True).click()
        assert figure.bounding_box()["height"] > 300
        assert "0 of 1" in page.locator("section.present .tally").text_content()

        page.keyboard.press("Space")
        page.keyboard.press("Space")
        plot = "document.querySelector('section.present .plot')"
        page.locator("section.present .plot .main-svg").first.wait_for()
        before = page.evaluate(f"Array.from({plot}.data[0].y)")
        page.locator("section.present [data-key=epoch]").focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")  # the slider's, not the slides'
        page.wait_for_timeout(500)
        assert page.evaluate(f"Array.from({plot}.data[0].y)") != before
        browser.close()
    assert said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
