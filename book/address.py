"""Where the repository is on GitHub, by its own setting alone: no address is written down here."""

import os
import re
import subprocess
from pathlib import Path


def repository(root: Path) -> str | None:
    """Return OWNER/NAME, as GitHub's workflows set it or as git's remote ``origin`` has it.

    None where neither is there: then there is no address to open Colab and Binder from.
    """
    if (given := os.environ.get("GITHUB_REPOSITORY")) is not None:
        return given or None
    command = ["git", "-C", str(root), "config", "--get", "remote.origin.url"]
    try:
        origin = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git here
        return None
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", origin)
    return found[1] if found else None
