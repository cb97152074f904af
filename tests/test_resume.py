"""An interrupted training goes on to exactly what it would have become."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from ltml import InputError, Recipe, data, fit, resume
from ltml.runs import checkpoint
from ltml.runs.checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from ltml.training import train

# Everything that has a state of its own: DGB's buffers, augmentation, fusion, both moments of Adam.
RECIPE = Recipe(
    sampler="group",
    loss="dgb",
    diversity="dem",
    batch_size=16,
    steps=24,
    warmup=5,
    evaluate_every=1,
)
TABLES = ("metrics.csv", "per_class.csv")


class StopError(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    return fit(RECIPE, data=tiny, out=tmp_path_factory.mktemp("runs") / "whole", progress=False)


def stop_at(monkeypatch, step):
    """Raise in the middle of a step: after its gradient, before the weights move."""
    see = checkpoint.Divergence.see

    def stopping(self, at, *values):
        if at == step and len(values) == 2:  # loss and gradient norm
            raise StopError
        see(self, at, *values)

    monkeypatch.setattr(checkpoint.Divergence, "see", stopping)


def interrupted(monkeypatch, step, **options):
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(StopError):
            fit(progress=False, **options)


def same(run, other):
    for name in TABLES:
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), name
    weights = other.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in run.state_dict().items())
    differ = {"seconds"}
    assert {k: v for k, v in run.summary.items() if k not in differ} == {
        k: v for k, v in other.summary.items() if k not in differ
    }


@pytest.mark.parametrize(
    ("step", "save_minutes"),
    [
        *((3, 0), (15, 5), (23, 0)),
        *(
            pytest.param(*s, marks=pytest.mark.slow)
            for s in ((0, 0), (0, 5), (3, 5), (15, 0), (23, 5))
        ),
    ],
)
def test_goes_on_exactly_after_any_step(tiny, whole, tmp_path, monkeypatch, step, save_minutes):
    options = {"data": tiny, "out": tmp_path / "run", "save_minutes": save_minutes}
    interrupted(monkeypatch, step, recipe=RECIPE, **options)
    assert load_checkpoint(tmp_path / "run") is None or step > 0
    run = resume(tmp_path / "run", data=tiny, progress=False)
    same(run, whole)
    assert not {CHECKPOINT, PREVIOUS, ".lock"} & {p.name for p in run.path.iterdir()}


def test_a_finished_run_is_returned_as_it_is(tiny, whole):
    before = (whole.path / "summary.json").stat().st_mtime_ns
    same(resume(whole.path, data=tiny, progress=False), whole)
    assert (whole.path / "summary.json").stat().st_mtime_ns == before


def test_dropout_goes_on_exactly_too(tiny, tmp_path, monkeypatch):
    build = train.build_model

    def with_dropout(*args):
        model = build(*args)
        model.backbone.add_module("dropout", nn.Dropout(0.3))
        return model

    monkeypatch.setattr(train, "build_model", with_dropout)
    torch.manual_seed(1)
    recipe = replace(RECIPE, steps=12)
    one = fit(recipe, data=tiny, out=tmp_path / "one", progress=False)
    torch.manual_seed(2)  # a run hangs on its recipe alone, and leaves torch's generator alone
    before = torch.get_rng_state()
    options = {"data": tiny, "out": tmp_path / "two", "save_minutes": 0}
    interrupted(monkeypatch, 7, recipe=recipe, **options)
    same(resume(tmp_path / "two", data=tiny, progress=False), one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("harm", ["cut", "flip", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tiny, whole, tmp_path, monkeypatch, harm, caplog
):
    options = {"data": tiny, "out": tmp_path / "run", "save_minutes": 0}
    interrupted(monkeypatch, 20, recipe=RECIPE, **options)
    path = tmp_path / "run" / CHECKPOINT
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    same(resume(tmp_path / "run", data=tiny, progress=False), whole)
    assert ("is damaged" in caplog.text) == (harm != "gone")


def test_without_a_whole_checkpoint_it_says_so(tmp_path):
    for n in range(2):
        save_checkpoint(tmp_path, {"n": n})
    assert load_checkpoint(tmp_path) == {"n": 1}
    for name in (CHECKPOINT, PREVIOUS):
        (tmp_path / name).write_bytes(b"short")
    with pytest.raises(InputError, match="are damaged"):
        load_checkpoint(tmp_path)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    save_checkpoint(tmp_path, {"trap": Trap()})
    with pytest.raises(Exception, match="Weights only load failed"):
        load_checkpoint(tmp_path)


def test_other_data_are_refused(tiny, tmp_path, monkeypatch):
    interrupted(monkeypatch, 3, recipe=RECIPE, data=tiny, out=tmp_path / "run")
    other = data.load("pictograms", scale=0.12, image_size=24, test_images=80)
    with pytest.raises(InputError, match="other data"):
        resume(tmp_path / "run", data=other, progress=False)
    with pytest.raises(InputError, match="has no config"):
        resume(tmp_path, data=tiny)


# A parent that has everything imported forks a training, kills it, and forks the next.
KILLER = """
import json, os, random, signal, sys, time
import torch
from ltml import Recipe, data, fit, resume
recipe, out, seed = Recipe(**json.loads(sys.argv[1])), sys.argv[2], int(sys.argv[3])
random.seed(seed)
tiny = data.load("pictograms", scale=0.1, image_size=24, test_images=80)

def train():
    torch.set_num_threads(1)
    options = {"data": tiny, "progress": False, "save_minutes": 0}
    if os.path.exists(out + "/config.json"):
        resume(out, **options)
    else:
        fit(recipe, out=out, **options)

kills = 0
while not os.path.exists(out + "/summary.json"):
    child = os.fork()
    if child == 0:
        try:
            train()
        finally:
            os._exit(0)
    # Longer and longer, so that it gets there on a slow machine too.
    time.sleep(random.uniform(0.05, 0.6) * (1 + kills / 20))
    os.kill(child, random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    _, status = os.waitpid(child, 0)
    kills += not os.WIFEXITED(status) or not os.path.exists(out + "/summary.json")
print(kills)
"""


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tiny, tmp_path):
    recipe = replace(RECIPE, steps=60, batch_size=8)
    fields = {k: v for k, v in vars(recipe).items() if v != getattr(Recipe(), k)}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = fit(recipe, data=tiny, out=tmp_path / "whole", progress=False)
    finally:
        torch.set_num_threads(threads)
    kills, attempt = 0, 0
    while kills < 20:
        out = tmp_path / f"killed{attempt}"
        done = subprocess.run(
            [sys.executable, "-c", KILLER, json.dumps(fields), str(out), str(attempt)],
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        for name in TABLES:
            assert (out / name).read_bytes() == (whole.path / name).read_bytes(), name
        kills += int(done.stdout.split()[-1])
        attempt += 1
