"""Load: 10,000 steps on 100,000 images of 1,203 classes; and a hundred runs in one folder."""

import dataclasses
import gc
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ltml import LongTailData, Recipe, Split, fit, record_features
from ltml.core.files import write_csv, write_json
from ltml.runs.run import METRICS, PER_CLASS, SCHEMA
from ltml.training import train

CLASSES, IMAGES, STEPS = 1203, 100_000, 10_000
# Growth over 9,000 steps, 2.8 kB a step: one tensor of logits a step, (4, 1203) floats, would be
# 165 MiB; what the allocator adds once it is warm is well below.
FLAT = 24 * 2**20
PANDAS = 0.6  # seconds that Python and pandas take to start on two idle cores

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))
from sampling import long_tailed  # noqa: E402


def resident() -> int:
    """Bytes of memory that this process holds now."""
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("this system does not tell the memory of a process as it is")
    gc.collect()
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for a core that others hold would make a test of minutes one of hours."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def labels():
    return long_tailed(IMAGES, CLASSES)


@pytest.fixture(scope="module")
def data(labels):
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8))
    test = labels.subset(np.arange(500))
    ids = [f"{i:06d}" for i in range(IMAGES)]
    return LongTailData("wide", Split(images, labels, ids), Split(images[:500], test, ids[:500]))


def write_run(folder: Path, classes: int, epochs: int, steps: int, seed: int) -> Path:
    """Write what a training of made-up numbers leaves, by what writes the real ones."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    counts = np.rint(1000 * 200.0 ** -np.linspace(0, 1, classes)).astype(int)
    names = [f"class {c:04d}" for c in range(classes)]
    group = np.select([counts >= 100, counts >= 20], ["head", "medium"], "tail")
    tables = []
    for epoch in range(1, epochs + 1):
        table = pd.DataFrame({"epoch": epoch, "class": names, "group": group, "count": counts})
        table["ap"] = random.random(classes)
        for name in ("grad_pos", "grad_neg", "grad_weight"):
            table[name] = counts**0.5 * random.lognormal(0, 0.4, classes)
        tables.append(table)
    write_csv(folder / "per_class.csv", pd.concat(tables)[PER_CLASS])
    scores = {"mAP": 0.5 + seed / 1000, "head": 0.7, "medium": 0.5, "tail": 0.3}
    metrics = pd.DataFrame({"epoch": range(1, epochs + 1), "train_loss": 0.1, **scores})
    metrics["step"] = metrics.epoch * steps // epochs
    write_csv(folder / "metrics.csv", metrics[METRICS])
    described = {
        "name": "wide",
        "train_images": IMAGES,
        "test_images": 500,
        "labels_per_image": 3.0,
        "class_names": names,
        "test_counts": counts.tolist(),
    }
    recipe = dataclasses.asdict(Recipe(steps=steps, seed=seed))
    write_json(folder / "config.json", {"schema": SCHEMA, "recipe": recipe, "data": described})
    measured = {"gradient_imbalance": 30.0, "seconds": 60.0, "classes_without_positives": []}
    rest = {"steps": steps, "torch": torch.__version__, "device": "cpu"}
    write_json(folder / "summary.json", scores | measured | rest)
    return folder


@pytest.mark.slow
def test_training_on_many_images_of_many_classes_keeps_memory_flat(data, tmp_path, monkeypatch):
    """10,000 steps of the whole training: group sampler, network, balanced loss, ledger."""
    memory, step = [], train.Training.take_step

    def watched(self, *batch):
        step(self, *batch)
        if self.step % 1000 == 0:
            memory.append(resident())

    monkeypatch.setattr(train.Training, "take_step", watched)
    recipe = Recipe(
        data="wide",
        image_size=8,
        batch_size=4,
        steps=STEPS,
        augment="none",
        sampler="group",
        sampler_options={"ridge": 0.1},
        loss="dgb",
        device="cpu",
        allow_leaks=True,
    )
    run = fit(recipe, data=data, out=tmp_path / "run", progress=False)
    assert len(memory) == 10
    assert memory[-1] - memory[0] < FLAT, [round(m / 2**20) for m in memory]
    # Nothing an image or a step: a row a class and epoch, and no checkpoint is left.
    sizes = {path.name: path.stat().st_size for path in run.path.iterdir()}
    assert len(run.per_class) == CLASSES * len(run.metrics) == CLASSES
    assert sizes.pop("per_class.csv") < 110 * CLASSES
    assert sizes.pop("metrics.csv") < 500
    assert sizes.pop("summary.json") < 1000 + 40 * CLASSES  # it names the classes never tested
    assert sizes.pop("config.json") < 60 * CLASSES + 5000
    weights = sum(value.numel() for value in run.state_dict().values())
    assert sizes.pop("model.pt") < 4 * weights + 100_000
    assert sizes.pop("scores.npz") < 4 * len(data.test) * CLASSES + 200_000  # single precision
    assert not sizes
    record_features(run, data=data, per_class=2, neighbors=2)
    D, positives = run.state_dict()["head.classifier.weight"].shape[1], 2 * 2 * CLASSES
    assert (run.path / "features.npz").stat().st_size < positives * (2 * D + 3 * 64 + 100)


@pytest.mark.slow
def test_a_hundred_runs_are_compared_in_two_seconds(tmp_path):
    """From the shell and back, Python's start included: the best of three."""
    folders = [
        write_run(tmp_path / f"run-{i:03d}", 80 if i % 2 else 20, 30, 3000, i) for i in range(100)
    ]
    command, times = [sys.executable, "-m", "ltml.cli", "compare", *folders], []
    for _ in range(3):
        began = time.perf_counter()
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        times.append(time.perf_counter() - began)
        assert len(said.splitlines()) == 101
    took = min(times)
    print(f"compare: {took:.2f} s")
    # Where the machine is slow or busy, so is the start of Python and pandas alone.
    bare = [sys.executable, "-c", "import pandas, tyro"]
    began = time.perf_counter()
    subprocess.run(bare, check=True)
    slower = max(1, (time.perf_counter() - began) / PANDAS)
    assert took < 2 * slower, (
        f"{took:.2f} s where Python and pandas start {slower:.1f} times slower"
    )
