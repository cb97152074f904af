"""Follow a training in another tool: what each epoch adds to a run, as scalars.

Each is called with the run so far, as ``fit(on_epoch=...)`` and ``Recorder(on_epoch=...)`` do.
"""

import math
from collections.abc import Callable

from ltml.core.errors import InputError
from ltml.core.options import choose
from ltml.runs.run import Run

FOLDER = "tensorboard"  # in the run's


def scalars(run: Run) -> dict[str, float]:
    """Numbers of the last epoch by name: of the whole, and of each class ``ap/``, ``auroc/`` and
    ``gradient/`` (positive and negative together); what is not known is left out."""
    found = run.metrics.iloc[-1].drop(["epoch", "step"]).to_dict()
    last = run.per_class[run.per_class.epoch == run.per_class.epoch.max()].set_index("class")
    last = last.assign(gradient=last.grad_pos + last.grad_neg)
    for part in ("ap", "auroc", "gradient"):
        if part in last:
            found |= {f"{part}/{name}": value for name, value in last[part].items()}
    if last.gradient.min() > 0:
        found["gradient_imbalance"] = last.gradient.max() / last.gradient.min()
    return {name: float(value) for name, value in found.items() if not math.isnan(value)}


class TensorBoard:
    """Write event files into the run's folder; see them with ``tensorboard --logdir runs``.

    Raises:
        InputError: if tensorboard is missing.
    """

    def __init__(self):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                "tensorboard is missing; install it with: pip install 'ltml[log]'"
            ) from error
        self._writer = SummaryWriter

    def __call__(self, run: Run) -> None:
        """Write the last epoch."""
        step = int(run.metrics.step.iloc[-1])
        with self._writer(run.path / FOLDER) as writer:  # a file an epoch: nothing is left open
            for name, value in scalars(run).items():
                writer.add_scalar(name, value, step)


class WandB:
    """Log to the present run of Weights & Biases: call ``wandb.init(...)`` before.

    Raises:
        InputError: if wandb is missing.
    """

    def __init__(self):
        self._tool = _imported("wandb")

    def __call__(self, run: Run) -> None:
        """Log the last epoch."""
        self._tool.log(scalars(run), step=int(run.metrics.step.iloc[-1]))


class MLflow:
    """Log to the active run of MLflow, or to a new one.

    Raises:
        InputError: if mlflow is missing.
    """

    def __init__(self):
        self._tool = _imported("mlflow")

    def __call__(self, run: Run) -> None:
        """Log the last epoch; MLflow refuses other characters than a few in a name."""
        fit = {
            "".join(c if c.isalnum() or c in "/_-. " else "_" for c in name): value
            for name, value in scalars(run).items()
        }
        self._tool.log_metrics(fit, step=int(run.metrics.step.iloc[-1]))


LOGS: dict[str, Callable] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def make_log(name: str) -> Callable[[Run], None]:
    """Build a log by its name.

    Raises:
        InputError: if there is none, or its package is missing.
    """
    return choose("log", name, LOGS)()


def _imported(name: str):
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is missing; install it with: pip install {name}") from error
