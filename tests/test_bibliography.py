"""Every paper that a notebook or a docstring links to is in the bibliography, and on its page."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAPER = re.compile(r"(?:arxiv\.org/abs/|doi\.org/)([\w./-]*\w)")
BIB = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
PAGE = (ROOT / "book" / "bibliography.md").read_text(encoding="utf-8")


def test_papers_that_are_used_are_listed():
    used = set()
    for path in [*(ROOT / "ltml").rglob("*.py"), *(ROOT / "notebooks").rglob("*.ipynb")]:
        used |= set(PAPER.findall(path.read_text(encoding="utf-8")))
    assert len(used) > 15
    assert used <= set(PAPER.findall(BIB))


def test_the_page_lists_what_the_bibtex_file_holds():
    assert set(PAPER.findall(PAGE)) == set(PAPER.findall(BIB))
    assert PAGE.count("\n- ") == BIB.count("\n@") + 1
    keys = re.findall(r"^@\w+\{(.+),$", BIB, re.M)
    assert keys == sorted(set(keys))
