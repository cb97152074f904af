"""Module names of 0.4 and before, which still import, with a warning of where they went."""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType

_CORE = "errors files options seeding ranks labels sampler maxent audit ledger metrics discriminant"
MOVED = {  # the old name below ltml -> where what it held is now
    **{name: [f"core.{name}"] for name in _CORE.split()},
    "losses": ["core.losses", "core.elementwise", "core.dgb"],
    "elementwise": ["core.elementwise"],
    "dgb": ["core.dgb"],
    "diversity": ["core.heads"],
    "data.frames": ["data.memory"],
    **{name: [f"runs.{name}"] for name in ("recipe", "run", "recorder", "checkpoint")},
    "backbones": ["training.network"],
    "build": ["training.network", "training.setup", "core.devices"],
    "frozen": ["training.bank"],
    "refit": ["training.refit", "training.passes"],
    "features": ["training.features", "runs.features"],
    **{name: [f"training.{name}"] for name in ("train", "predict", "ablation")},
    "report": ["plots.report"],
    "plots.readings": ["plots.captions"],
}


class Moved:
    """Find the modules of :data:`MOVED`; an entry of :data:`sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        """Answer for old names below ``ltml`` alone."""
        known = name.startswith("ltml.") and name.removeprefix("ltml.") in MOVED
        return ModuleSpec(name, Moved) if known else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Take Python's own empty module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Have the module look its names up where they went."""
        places = [f"ltml.{place}" for place in MOVED[module.__name__.removeprefix("ltml.")]]
        warnings.warn(
            f"{module.__name__} is now {', '.join(places)}; the old name goes with ltml 0.7",
            DeprecationWarning,
            stacklevel=2,
        )

        def look_up(name: str):
            for place in places:
                found = importlib.import_module(place)
                if hasattr(found, name):
                    return getattr(found, name)
            raise AttributeError(f"{module.__name__}, now {', '.join(places)}, has no {name!r}")

        module.__getattr__ = look_up


def install() -> None:
    """Make the old names importable."""
    sys.meta_path.append(Moved)
