"""Two processes do what one does."""

import json
import subprocess
import sys

import pandas as pd
import pytest
import torch
from torch import nn

from ltml import Recipe, data, loop
from ltml.ranks import Ranks

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
    device="cpu",
)
WORKER = """
import json, os, pathlib, sys
import torch
from torch import nn
from ltml import Recipe, data, fit, loop

torch.set_num_threads(1)
recipe, out = Recipe(**json.loads(sys.argv[1])), sys.argv[2]
build = loop.build_model

def without_batch_norm(recipe, labels):
    model = build(recipe, labels)
    layers = [m for m in model.backbone if not isinstance(m, nn.BatchNorm2d)]
    model.backbone = nn.Sequential(*layers)
    return model

loop.build_model = without_batch_norm
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


def launched(tmp_path, name, launcher=None):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    fields = {k: v for k, v in vars(RECIPE).items() if v != getattr(Recipe(), k)}
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


def test_on_its_own_a_process_is_all_there_is():
    alone = Ranks.join("cpu")
    assert (alone, alone.first) == (Ranks(0, 1), True)
    x = torch.arange(3.0)
    assert torch.equal(alone.gathered(x, 3), x)
    assert torch.equal(alone.mean(x.clone()), x)
    assert alone.told("a") == "a"
    model = nn.Linear(1, 1)
    assert alone.shared(model) is model
    assert alone.device(torch.device("cpu")) == torch.device("cpu")


def test_random_views_differ_between_processes_and_do_not_hang_on_their_number(tmp_path):
    """A step's draws are numbered by step and process: one process draws as it always did."""
    tiny = data.load("pictograms", scale=0.1, image_size=24, test_images=40)
    loader = loop.Loader(tiny.train, image_size=24, augment="shift")
    index = [torch.arange(8)] * 2
    first, second = (images for images, _ in loader.batches(index, seed=0, numbers=[0, 1]))
    again = next(loader.batches(index, seed=0))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
