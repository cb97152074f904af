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

from ltml import InputError, LabelMatrix, LongTailData, Recipe, Run, Split, data, fit, loop, resume
from ltml.checkpoint import CURRENT, load_checkpoint
from ltml.faults import claimed, largest_batch

RECIPE = Recipe(batch_size=16, steps=24, warmup=5)


@pytest.fixture(scope="module")
def tiny():
    return data.load("pictograms", scale=0.1, image_size=24, test_images=80)


def finished(run, steps=24):
    assert Run.load(run.path).metrics.step.iloc[-1] == steps


@pytest.mark.parametrize("what", ["logits", "loss", "weights"])
def test_a_nan_stops_the_training_and_names_step_class_and_images(
    tiny, tmp_path, monkeypatch, what
):
    build, poisoned = loop.build_loss, 17

    class Poison(torch.nn.Module):
        def __init__(self, criterion):
            super().__init__()
            self.criterion, self.step = criterion, 0

        def forward(self, logits, targets):
            loss = self.criterion(logits, targets)
            self.step += 1
            return loss * float("nan") if self.step == poisoned and what == "loss" else loss

    monkeypatch.setattr(loop, "build_loss", lambda *args: Poison(build(*args)))
    forward, calls = loop.Training._backward, []

    def backward(self, model, images, targets):
        calls.append(self.step)
        if self.step == poisoned - 1 and what == "weights":
            with torch.no_grad():
                self.model.head.classifier.weight[3] = float("inf")
        if self.step == poisoned - 1 and what == "logits":
            images = images.clone()
            images[5] = float("nan")
        return forward(self, model, images, targets)

    monkeypatch.setattr(loop.Training, "_backward", backward)
    with pytest.raises(InputError) as caught:
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False, save_minutes=0)
    said = str(caught.value)
    assert "lower lr=0.01" in said
    monkeypatch.undo()
    if what == "loss":
        assert f"the loss or its gradient became infinite or NaN in step {poisoned}" in said
    if what == "weights":
        assert tiny.class_names[3] in said
    if what != "loss":
        assert "logits" in said
    # The last good checkpoint is from before, and the training goes on from there.
    assert load_checkpoint(tmp_path / "run")["step"] == poisoned - 1
    finished(resume(tmp_path / "run", data=tiny, progress=False))


def test_the_images_of_the_broken_batch_are_named(tiny, tmp_path, monkeypatch):
    look = loop.Divergence.look

    def broken(self, step, *values):
        look(self, step, *(v * float("inf") if step == 4 and v.ndim == 0 else v for v in values))

    monkeypatch.setattr(loop.Divergence, "look", broken)
    with pytest.raises(InputError) as caught:
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False)
    sampler = loop.build_sampler(RECIPE, tiny.train.labels, 24)
    batch = sampler.indices(4).tolist()
    assert f"step 5, on training images {', '.join(map(str, batch[:8]))}, ..." in str(caught.value)


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
        with pytest.raises(InputError, match=f"{CURRENT}' could not be written"):
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
    loader = loop.Loader
    monkeypatch.setattr(loop, "Loader", lambda *args, **kw: loader(*args, **kw, **keep_files))

    def vanish(run):
        if len(run.metrics) == 2:
            files[7].rename(tmp_path / "moved.png")

    recipe = Recipe(steps=16, batch_size=8, image_size=16, warmup=0)
    options = {"data": LongTailData("mine", split, split), "progress": False}
    with pytest.raises(InputError, match=r"7\.png"):
        fit(recipe, out=tmp_path / "run", on_epoch=vanish, **options)
    (tmp_path / "moved.png").rename(files[7])
    finished(resume(tmp_path / "run", **options), 16)


def test_out_of_memory_says_which_batch_size_would_fit(tiny, tmp_path, monkeypatch):
    forward = loop.Training._backward

    def backward(self, model, images, targets):
        if len(images) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(self, model, images, targets)

    monkeypatch.setattr(loop.Training, "_backward", backward)
    with pytest.raises(InputError, match=r"batch_size=16 .* does not fit .* 4 fits: give batch_s"):
        fit(RECIPE, data=tiny, out=tmp_path / "run", progress=False)

    def never(self, model, images, targets):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 GB")

    monkeypatch.setattr(loop.Training, "_backward", never)
    with pytest.raises(InputError, match="nor does any other: give a smaller image_size"):
        fit(RECIPE, data=tiny, out=tmp_path / "run2", progress=False)


def test_other_errors_of_the_device_are_not_taken_for_a_lack_of_memory():
    def attempt(size):
        raise RuntimeError("illegal memory access")

    with pytest.raises(RuntimeError, match="illegal"):
        largest_batch(attempt, 16)


@pytest.mark.parametrize("name", ["metrics.csv", "per_class.csv", "summary.json", "config.json"])
def test_a_record_that_was_cut_short_is_named_and_the_others_stay_readable(tmp_path, name):
    source = Path(__file__).resolve().parents[1] / "figures" / "records" / "method"
    run = tmp_path / "run"
    shutil.copytree(source, run)
    (run / name).write_bytes((run / name).read_bytes()[:40])
    with pytest.raises(InputError, match=name):
        Run.load(run)
    assert replace(Run.load(source)) is not None
