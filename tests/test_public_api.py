"""The names that users build on. A change here is a change for them: say it in CHANGELOG.md."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import ltml
from ltml import Recipe, Run, plots, widgets
from ltml.runs.run import SCHEMA

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "tests" / "public_api.json"
RECORDS = ROOT / "tests" / "records"


def described():
    """Name -> parameters with their defaults, of all that is public."""
    found = {}
    for prefix, module in (("ltml", ltml), ("ltml.plots", plots), ("ltml.widgets", widgets)):
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if inspect.isclass(thing) and issubclass(thing, Exception):
                found[f"{prefix}.{name}"] = [base.__name__ for base in thing.__mro__[1:-1]]
            elif isinstance(thing, dict):
                found[f"{prefix}.{name}"] = sorted(thing)
            elif inspect.isclass(thing) or callable(thing):
                found[f"{prefix}.{name}"] = [
                    p.name if p.default is p.empty else f"{p.name}={p.default!r}"
                    for p in inspect.signature(thing).parameters.values()
                ]
    for name in ("baseline", "method"):
        made = vars(getattr(Recipe, name)())
        found[f"ltml.Recipe.{name}()"] = [f"{k}={v!r}" for k, v in sorted(made.items())]
    return found


def test_no_name_or_default_changes_unannounced():
    known, now = json.loads(API.read_text()), described()
    changed = [name for name in known.keys() | now.keys() if known.get(name) != now.get(name)]
    assert not changed, (
        f"{sorted(changed)} changed for users: say so in CHANGELOG.md, then write the new state "
        "with: python tests/test_public_api.py"
    )


def test_the_changelog_knows_this_version():
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## {re.escape(ltml.__version__)}$", changelog, re.M)
    assert f"schema {SCHEMA}" in changelog


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
def test_runs_of_every_version_stay_readable(schema, tmp_path):
    run = Run.load(RECORDS / f"schema{schema}")
    assert run.config["schema"] == schema
    assert len(run.classes) == 20
    assert run.classes.ap.between(0, 1).all()
    assert run.metrics.step.is_monotonic_increasing
    Recipe.from_dict(run.recipe).check()
    plots.gradient_magnitudes(run)
    plots.group_bars(run)
    # and with what later versions may add
    later = tmp_path / "later"
    shutil.copytree(run.path, later)
    config = json.loads((later / "config.json").read_text())
    config["recipe"]["a_later_option"] = 1
    (later / "config.json").write_text(json.dumps(config))
    table = pd.read_csv(later / "per_class.csv").assign(a_later_column=0)
    table.to_csv(later / "per_class.csv", index=False)
    assert len(Run.load(later).classes) == 20
    Recipe.from_dict(Run.load(later).recipe).check()


if __name__ == "__main__":
    API.write_text(json.dumps(described(), indent=1) + "\n")
