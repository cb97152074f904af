"""Make slides of notebooks, from the notebooks themselves.

``python book/slides.py SITE [NOTEBOOK ...]`` runs them first; ``make book`` hands over what it has
run. A heading begins a column of slides. Below it stand its text, a few paragraphs a slide, the
figures, and code where it is short; a figure that waits for a prediction waits here too. Everything
that a page loads lies beside it, in ``_static``.
"""

import os
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import SlidesExporter
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHARACTERS = 750  # of text on a slide
LINES = 16  # of code on a slide


def deck(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a notebook whose cells are slides, with nbconvert's metadata."""
    cells, section = [], ""
    first = next(i for i, cell in enumerate(book.cells) if cell.cell_type == "code")
    for i, cell in enumerate(book.cells):
        if cell.cell_type == "markdown":
            for heading, text in _pages(cell.source):
                section = heading or section
                kicker = "" if heading else f'<p class="kicker">{section.lstrip("# ")}</p>\n\n'
                cells.append(nbformat.v4.new_markdown_cell(f"{heading}\n\n{kicker}{text}".strip()))
                _begin(cells[-1], "slide" if heading.startswith(("# ", "## ")) else "subslide")
        elif i != first and (kept := _code(cell)):  # the first installs ltml where it is missing
            cells.append(_begin(kept, "subslide"))
    return nbformat.v4.new_notebook(cells=cells, metadata=book.metadata)


def _begin(cell, kind: str):
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


def _pages(text: str):
    """Split text into (heading, text) of a slide: at headings, and where a slide is full."""
    text = re.sub(r"\]\(\.\./(?:book/)?([\w/]+)\.md", r"](../\1.html", text)
    text = re.sub(r"\]\((?!http|\.\./)(.*?)\.ipynb", r"](../notebooks/\1.html", text)
    heading, page = "", []
    for block in _blocks(text):
        if re.match("#{1,3} ", block):
            if heading or page:
                yield heading, "\n\n".join(page)
            heading, page = block, []
        elif page and len("".join([*page, block])) > CHARACTERS:
            yield heading, "\n\n".join(page)
            heading, page = "", [block]
        else:
            page.append(block)
    if heading or page:
        yield heading, "\n\n".join(page)


def _blocks(text: str):
    """Paragraphs, lists, tables, displayed formulas and blocks of code; a heading is its own."""
    block = []
    for line in text.splitlines():
        whole = "\n".join(block)
        is_open = whole.count("```") % 2 or whole.count("$$") % 2
        if not is_open and (not line.strip() or re.match("#{1,3} ", line)):
            if block:
                yield whole
            block = []
        if line.strip() or is_open:
            block.append(line)
        if re.match("#{1,3} ", line) and not is_open:
            yield line
            block = []
    if block:
        yield "\n".join(block)


def _code(cell):
    """A cell of code as a slide, or None: what it shows; what it does, where that is short."""
    shown = [out for out in cell.outputs if "data" in out and out.data.keys() - {"text/plain"}]
    source = re.sub(r"^(import|from) .*\n?", "", cell.source, flags=re.MULTILINE).strip()
    kept = nbformat.v4.new_code_cell(source, outputs=shown or cell.outputs)
    if shown or (len(source.splitlines()) > LINES and cell.outputs):
        kept.metadata["transient"] = {"remove_source": True}
        return kept
    return kept if source and len(source.splitlines()) <= LINES else None


def kernel() -> dict:
    """Return the environment of kernels whose live figures need no kernel afterwards."""
    path = [str(HERE / "kernel"), *filter(None, [os.environ.get("PYTHONPATH")])]
    startup = str(HERE / "kernel" / "startup.py")
    return {"PYTHONSTARTUP": startup, "PYTHONPATH": os.pathsep.join(path)}


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook as it is after a run."""
    book = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=1200, kernel_name="python3", resources=place).execute()
    return book


def write(site: Path, books: dict) -> None:
    """Write slides of notebooks that were run, name -> notebook, into the folder of a site."""
    config = Config()
    config.SlidesExporter.template_name = "slides"
    config.SlidesExporter.extra_template_basedirs = [str(HERE / "templates")]
    config.SlidesExporter.reveal_url_prefix = "../_static/reveal"
    config.SlidesExporter.reveal_theme = "white"  # others fetch fonts
    config.SlidesExporter.exclude_anchor_links = True
    config.SlidesExporter.exclude_input_prompt = config.SlidesExporter.exclude_output_prompt = True
    exporter = SlidesExporter(config=config)
    (site / "slides").mkdir(parents=True, exist_ok=True)
    for name, book in books.items():
        page, _ = exporter.from_notebook_node(deck(book), {"metadata": {"name": name}})
        (site / "slides" / f"{name}.html").write_text(page, encoding="utf-8")
    reveal = Path(find_spec("sphinx_revealjs").origin).parent / "_static" / "revealjs"
    for part in ("dist", "plugin/notes"):
        shutil.copytree(reveal / part, site / "_static" / "reveal" / part, dirs_exist_ok=True)


def add_scripts(site: Path) -> None:
    """Put beside slides what a site has already."""
    import plotly

    static = site / "_static"
    mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    shutil.copytree(mathjax, static / "mathjax", dirs_exist_ok=True)
    for path in (
        *(HERE / "static").iterdir(),
        ROOT / "ltml" / "plots" / "page" / "figures.js",
        Path(plotly.__file__).parent / "package_data" / "plotly.min.js",
    ):
        shutil.copy(path, static / path.name)


def main(site: str, *paths: str) -> None:
    """Run notebooks, and write their slides."""
    os.environ |= kernel()
    chosen = [Path(path).resolve() for path in paths] or NOTEBOOKS
    write(Path(site), {path.stem: run(path) for path in chosen})
    add_scripts(Path(site))
    print(f"slides: {Path(site) / 'slides'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
