"""Sphinx settings of the course as a site; `make book` builds it."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import plotly

import ltml
from ltml.plots.report import write_report

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
import address  # noqa: E402
import slides  # noqa: E402

REPOSITORY = address.repository(ROOT)
LAUNCH = {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"}

project = author = "ltml"
version = release = ltml.__version__
html_title = "ltml"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]

# Pages lie below this folder; and their first cell, which installs ltml on Colab, is folded away.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
    page = HERE / path.relative_to(ROOT)
    if not {"runs", "masters", ".ipynb_checkpoints"} & set(page.relative_to(HERE).parts):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        first["metadata"]["tags"] = ["hide-input"]
        if REPOSITORY:  # for who downloads it here
            setting = f'REPOSITORY = "https://github.com/{REPOSITORY}"'
            first["source"] = "".join(first["source"]).replace('REPOSITORY = ""', setting)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":  # the site's pages stand beside the notebooks
                cell["source"] = re.sub(r"(\]\((?:\.\./)+)book/", r"\1", "".join(cell["source"]))
            source, tags = "".join(cell["source"]), cell["metadata"].setdefault("tags", [])
            if re.search(r"\.imshow\(|nearest_images\(", source):
                tags.append("pictures")  # which keep their colours on a dark page
            if "widgets.predict(" in source:
                tags.append("hide-input")  # the replies stand there
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")

# Notebooks: each is run in a folder of its own, by a kernel that writes live figures as HTML.
os.environ |= slides.kernel()
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 1200  # seconds a cell; other programs may hold it up
nb_execution_raise_on_error = True
nb_merge_streams = True
# Patterns of notebooks to show without their outputs: for work on the pages themselves.
nb_execution_excludepatterns = os.environ.get("BOOK_WITHOUT", "").split()
if nb_execution_excludepatterns:
    suppress_warnings = ["misc.highlighting_failure"]  # the kernel says that its Python has magics
nb_ipywidgets_js = {}

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# The reference.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "sphinx_book_theme"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
FIGURES = ROOT / "ltml" / "plots" / "page" / "figures.js"  # of explorers that need no kernel
html_static_path = ["static", str(PLOTLY), str(FIGURES)]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "", "priority": 900})]  # after Plotly
html_sourcelink_suffix = ""  # so that a downloaded notebook is called as it is
html_last_updated_fmt = ""
html_show_copyright = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "footer_content_items": ["last-updated.html"],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "launch_buttons": LAUNCH if REPOSITORY else {},
    "use_download_button": True,  # the notebook; and a page printed, as PDF
    "repository_url": f"https://github.com/{REPOSITORY}" if REPOSITORY else "",
    "repository_branch": os.environ.get("GITHUB_REF_NAME", "main"),
    "use_repository_button": bool(REPOSITORY),
    "path_to_docs": "",
}


def link(app, page, source):
    """Point links of pages, which hold where the repository is read, to pages of the site."""
    if page == "teaching":  # slides are of the site alone
        row = r"^\| (\[.*?\]\(\.\./notebooks/(\w+)\.ipynb\)) "
        source[0] = re.sub(
            row, r'| \1<br><a href="slides/\2.html">slides</a> ', source[0], flags=re.MULTILINE
        )
    if page == "glossary":  # its terms, and their short forms, are what a search finds first
        source[0] = re.sub(r"^\*\*(.+?)\*\*:", _term, source[0], flags=re.MULTILINE)
    if not page.startswith(("notebooks/", "api/")):
        up = "../" * (page.count("/") + 1)
        links = rf"\]\({re.escape(up)}([^)#]+)(#[^)]*)?\)"
        source[0] = re.sub(links, lambda found: _link(up, found), source[0])


def _term(found) -> str:
    entries = "! " + re.sub(r",? \(|, ", ", ! ", found[1].replace(")", ""))  # a main entry each
    return f"```{{index}} {entries}\n```\n\n{found[0]}"


def _link(up: str, found) -> str:
    path, anchor = found[1], found[2] or ""
    if (ROOT / path).is_dir():
        path = min((ROOT / path).glob("*.ipynb")).relative_to(ROOT).as_posix()
    if path.endswith(".ipynb"):
        return f"]({up[3:]}{path}{anchor})"
    return found[0] if path.endswith(".png") else f"](<path:{up}{path}>)"


def spread(app, env, docnames):
    """Put every other page last, so that each of two processes gets half of the long notebooks."""
    docnames[:] = docnames[::2] + docnames[1::2]


def add_live_figures(app, page, template, context, doctree):
    """Load Plotly and the explorers' script where a page has use for them."""
    body = context.get("body", "")
    if "live-figure" in body or "ltml-explorer" in body:
        app.add_js_file("plotly.min.js", loading_method="defer")
    if "ltml-explorer" in body:  # after book.js, which turns a page white before it is printed
        app.add_js_file("figures.js", loading_method="defer", priority=950)


def add_slides(app, error):
    """Write slides of the notebooks as they were run."""
    if error is None and app.builder.format == "html":
        executed = Path(app.outdir).parent / "jupyter_execute" / "notebooks"
        books = {}
        for path in slides.NOTEBOOKS:
            found = executed / path.name
            books[path.stem] = nbformat.read(found if found.is_file() else path, 4)
        slides.write(Path(app.outdir), books)


def add_report(app, error):
    """Write the page of the committed records, whose sliders need no kernel."""
    if error is None and app.builder.format == "html":
        runs = [ltml.Run.load(ROOT / "figures" / "records" / n) for n in ("baseline", "method")]
        labels = {"pictograms": ltml.load("pictograms").train.labels}
        write_report(runs, Path(app.outdir) / "report.html", labels=labels)


def setup(app):
    """Connect what Sphinx calls on its way."""
    # It copies files at the end and does not say that two processes (-j 2) may build with it.
    mathjax = app.extensions["sphinx-mathjax-offline"]
    mathjax.parallel_read_safe = mathjax.parallel_write_safe = True
    app.connect("env-before-read-docs", spread)
    app.connect("source-read", link)
    app.connect("html-page-context", add_live_figures)
    app.connect("build-finished", add_report)
    app.connect("build-finished", add_slides)
