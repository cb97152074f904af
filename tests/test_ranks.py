"""Two processes do what one does."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from torch import nn

from ltml import Recipe, data
from ltml.core.ranks import Ranks
from ltml.training import train

# Batch norm over processes exists on GPUs only: this network has none. No random views, since each
# process draws its own.
RECIPE = Recipe(
    sampler="group",
    loss="dgb",
    diversity="attention",
    augment="none",
    batch_size=16,
    steps=24,
    warmup=5,
    lr=1e-3,
    evaluate_every=1,
    device="cpu",
)
WORKER = """
import json, os, pathlib, sys
import torch
from torch import nn
from ltml import Recipe, data, fit
from ltml.training import train as training

torch.set_num_threads(1)
recipe, out = Recipe(**json.loads(sys.argv[1])), sys.argv[2]
build = training.build_model

def without_batch_norm(*args):
    model = build(*args)
    for name, module in list(model.backbone.named_children()):
        if isinstance(module, nn.BatchNorm2d):
            setattr(model.backbone, name, nn.Identity())
    return model

training.build_model = without_batch_norm
tiny = data.load("pictograms", scale=0.1, image_size=24, test_images=81)

def train():
    run = fit(recipe, data=tiny, out=out, progress=False)
    # A file each: lines that two processes print at one time may run together.
    pathlib.Path(f"{out}-said-{os.environ.get('RANK', 0)}").write_text(str(run.summary["mAP"]))

if sys.argv[3:] == ["notebook_launcher"]:
    from accelerate import notebook_launcher
    notebook_launcher(train, num_processes=2)
else:
    train()
"""


def launched(tmp_path, name, launcher=None, **changes):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    fields = {k: v for k, v in vars(RECIPE).items() if v != getattr(Recipe(), k)} | changes
    command = [sys.executable]
    if launcher == "torchrun":  # what accelerate launch does for GPUs; for CPUs it wants MPI
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / name
    done = subprocess.run(
        [*command, str(worker), json.dumps(fields), str(out), *([launcher] if launcher else [])],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return out, [path.read_text() for path in sorted(tmp_path.glob(f"{name}-said-*"))]


@pytest.mark.slow
def test_two_processes_leave_the_run_that_one_does(tmp_path):
    one, _ = launched(tmp_path, "one")
    weights = torch.load(one / "model.pt", weights_only=True)
    for launcher in ("torchrun", "notebook_launcher"):
        two, said = launched(tmp_path, launcher, launcher)
        assert len(said) == 2  # both return the run that the first wrote
        assert said[0] == said[1]
        assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
        for name in ("metrics.csv", "per_class.csv"):
            expected, found = pd.read_csv(one / name), pd.read_csv(two / name)
            pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-5)
        found = torch.load(two / "model.pt", weights_only=True)
        for key, value in weights.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_refit_the_head_that_one_does(tmp_path):
    options = {"refit": True, "augment": "light", "steps": 0}
    one, _ = launched(tmp_path, "one", **options)
    two, _ = launched(tmp_path, "two", "torchrun", **options)
    for name in ("stages.csv", "per_class.csv"):
        expected, found = pd.read_csv(one / name), pd.read_csv(two / name)
        pd.testing.assert_frame_equal(found, expected, rtol=1e-5, atol=1e-5)
    found = torch.load(two / "model.pt", weights_only=True)
    for key, value in torch.load(one / "model.pt", weights_only=True).items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


DROPOUT = """
import json, sys
import torch
from torch import nn
from ltml import Recipe, data, fit, resume
from ltml.training import train as training

torch.set_num_threads(1)
recipe, out, step = Recipe(**json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3])
build, take_step = training.build_model, training.Training.take_step

def with_dropout(*args):
    model = build(*args)
    model.backbone.add_module("dropout", nn.Dropout(0.3))
    return model

class Stopped(Exception):
    pass

def stopping(self, *args):
    if self.step == step:
        raise Stopped
    take_step(self, *args)

training.build_model = with_dropout
tiny = data.load("pictograms", scale=0.1, image_size=24, test_images=81)
if step:
    training.Training.take_step = stopping
    try:
        fit(recipe, data=tiny, out=out, progress=False)
    except Stopped:
        pass
    training.Training.take_step = take_step
    resume(out, data=tiny, progress=False)
else:
    fit(recipe, data=tiny, out=out, progress=False)
"""


@pytest.mark.slow
def test_every_process_goes_on_with_its_own_random_state(tmp_path):
    """Dropout draws from torch's own generator, and differently in each process."""
    fields = {k: v for k, v in vars(RECIPE).items() if v != getattr(Recipe(), k)}
    worker = tmp_path / "worker.py"
    worker.write_text(DROPOUT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(worker), json.dumps(fields)]
    for name, step in (("whole", 0), ("resumed", 20)):
        done = subprocess.run(
            [*command, str(tmp_path / name), str(step)],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    for name in ("metrics.csv", "per_class.csv"):
        whole, resumed = (pd.read_csv(tmp_path / run / name) for run in ("whole", "resumed"))
        pd.testing.assert_frame_equal(resumed, whole, rtol=1e-5)


def test_on_its_own_a_process_is_all_there_is():
    alone = Ranks.join("cpu")
    assert (alone, alone.is_main) == (Ranks(0, 1), True)
    x = torch.arange(3.0)
    assert torch.equal(alone.all_gather_rows(x, 3), x)
    assert alone.all_gather("a") == ["a"]
    assert torch.equal(alone.all_reduce_mean(x.clone()), x)
    assert alone.broadcast("a") == "a"
    model = nn.Linear(1, 1)
    assert alone.wrap(model) is model
    assert alone.device(torch.device("cpu")) == torch.device("cpu")


def test_random_views_differ_between_processes_and_do_not_hang_on_their_number(tmp_path):
    """A step's draws are numbered by step and process: one process draws as it always did."""
    tiny = data.load("pictograms", scale=0.1, image_size=24, test_images=40)
    loader = train.Loader(tiny.train, image_size=24, augment="shift")
    index = [torch.arange(8)] * 2
    first, second = (images for images, _ in loader.batches(index, seed=0, numbers=[0, 1]))
    again = next(loader.batches(index, seed=0))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
