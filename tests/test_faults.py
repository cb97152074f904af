"""What goes wrong on the way is said in one sentence, and leaves what was there readable."""

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from ltml import InputError, LabelMatrix, LongTailData, Recipe, Run, Split, fit, resume
from ltml.core.sampler import UniformSampler
from ltml.runs.checkpoint import CHECKPOINT, load_checkpoint
from ltml.runs.recorder import claimed
from ltml.training import train
from ltml.training.network import Classifier

RECIPE = Recipe(batch_size=16, steps=24, warmup=5)


def finished(run, steps=24):
    assert Run.load(run.path).metrics.step.iloc[-1] == steps


@pytest.mark.parametrize("what", ["logits", "loss", "weights"])
def test_a_nan_stops_the_training_and_names_step_class_and_images(
    tiny, tmp_path, monkeypatch, what
):
    step, poisoned = train.Training.take_step, 17

    def poisonous(self, model, images, targets):
        if self.step == poisoned - 1:
            if what == "weights":
                with torch.no_grad():
                    self.model.head.classifier.weight[3] = float("inf")
            if what == "logits":
                images = images.clone()
                images[5] = float("nan")
            if what == "loss":
                self.criterion = lambda logits, targets: logits.mean() * float("nan")
        step(self, model, images, targets)

    monkeypatch.setattr(train.Training, "take_step", poisonous)
    with pytest.raises(InputError) as caught:
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False, save_minutes=0)
    said = str(caught.value)
    assert "lower lr=0.01" in said
    assert f"became infinite or NaN in step {poisoned}, on training images" in said
    monkeypatch.undo()
    sampler = UniformSampler(tiny.train.labels, batch_size=16, num_batches=24, seed=0)
    batch = sampler.indices(poisoned - 1).tolist()
    assert f"on training images {', '.join(map(str, batch[:8]))} " in said
    if what == "loss":
        assert "the loss or its gradient" in said
    if what == "weights":
        assert f"the logits of {tiny.class_names[3]} " in said
    # The last good checkpoint is from before, and the training goes on from there.
    assert load_checkpoint(tmp_path / "run")["step"] == poisoned - 1
    finished(resume(tmp_path / "run", data=tiny, progress=False))


def test_a_second_training_in_one_folder_is_refused(tiny, tmp_path):
    with claimed(tmp_path / "run"), pytest.raises(InputError, match="by another training"):
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False)
    finished(fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False))  # it has ended


@contextmanager
def largest_file(size):
    """No file of this process may grow beyond a size: as on a full disk, writing fails."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(sys.platform != "linux", reason="limits on file size differ elsewhere")
def test_a_full_disk_leaves_what_was_written(tiny, tmp_path):
    out = tmp_path / "run"

    def fill(run):
        if len(run.metrics) == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with largest_file(limits[0]):
        with pytest.raises(InputError, match=f"{CHECKPOINT}' could not be written"):
            fit(RECIPE, data=tiny, out=out, progress=False, on_epoch=fill)
        assert not [p for p in out.iterdir() if p.suffix == ".part"]
    assert load_checkpoint(out)["step"] == 8  # of the first epoch, whole
    finished(resume(out, data=tiny, progress=False))


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting needs root")
def test_a_read_only_folder_and_a_really_full_disk(tiny, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(InputError, match="No space left on device"):
            fit(RECIPE, data=tiny, out=disk / "run", progress=False)
        assert not list(disk.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(InputError, match="cannot be written"):
            fit(RECIPE, data=tiny, out=disk / "other", progress=False)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_said_before_training(tiny, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        fit(RECIPE, data=tiny, out=tmp_path / "file" / "run", progress=False)


def test_an_image_that_disappears_on_the_way_is_named(tmp_path, monkeypatch):
    files = [tmp_path / f"{i}.png" for i in range(32)]
    for i, path in enumerate(files):
        Image.new("RGB", (16, 16), (8 * i, 0, 0)).save(path)
    labels = LabelMatrix([[i % 2, 1 - i % 2] for i in range(32)], ["a", "b"])
    split = Split(files, labels, [path.stem for path in files])
    keep_files = {"keep": "files"}  # as with more images than memory holds
    loader = train.Loader
    monkeypatch.setattr(train, "Loader", lambda *args, **kw: loader(*args, **kw | keep_files))

    def vanish(run):
        if len(run.metrics) == 2:
            files[7].rename(tmp_path / "moved.png")

    recipe = Recipe(steps=16, batch_size=8, image_size=16, warmup=0, allow_leaks=True)
    options = {"data": LongTailData("mine", split, split), "progress": False}
    with pytest.raises(InputError, match=r"7\.png"):
        fit(recipe, out=tmp_path / "run", on_epoch=vanish, **options)
    (tmp_path / "moved.png").rename(files[7])
    finished(resume(tmp_path / "run", **options), 16)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
    ],
)
def test_out_of_memory_names_the_batch_size(tiny, tmp_path, monkeypatch, error):
    def forward(*args):
        raise error

    monkeypatch.setattr(Classifier, "forward", forward)
    with pytest.raises(InputError, match=r"batch_size=16 at image_size=24 does not fit"):
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False)


@pytest.mark.parametrize("name", ["metrics.csv", "per_class.csv", "summary.json", "config.json"])
def test_a_record_that_was_cut_short_is_named_and_the_others_stay_readable(tmp_path, name):
    source = Path(__file__).resolve().parents[1] / "figures" / "records" / "method"
    run = tmp_path / "run"
    shutil.copytree(source, run)
    (run / name).write_bytes((run / name).read_bytes()[:40])
    with pytest.raises(InputError, match=name):
        Run.load(run)
    assert replace(Run.load(source)) is not None
