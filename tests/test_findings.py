"""The scripts of findings/: each is listed, says what it pins, and can fail."""

import re
import stat
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "findings"
SCRIPTS = sorted(FOLDER.glob("*.sh"))


def test_the_table_lists_every_script_once():
    listed = re.findall(r"^\| \[(\w+)\]\((\w+)\.sh\)", (FOLDER / "README.md").read_text(), re.M)
    assert all(name == link for name, link in listed)
    assert sorted(name for name, _ in listed) == [script.stem for script in SCRIPTS]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_finding_is_executable_pinned_and_asserts(script):
    text = script.read_text()
    header = re.match(r"#!/usr/bin/env bash\n((?:# .+\n){5,14})set -euo pipefail\n", text)
    assert header
    assert "# Consequence:" in header[1]
    assert "# Remedy:" in header[1]
    assert script.stat().st_mode & stat.S_IXUSR
    packages = re.search(r"^venv/bin/pip install .*?((?: '[^']+')+)$", text, re.M)[1]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", p) for p in re.findall(r"'([^']+)'", packages))
    for word in ("expected:", "seen:", "\nassert "):
        assert word in text
    for word in ("ltml", "://"):
        assert word not in text
