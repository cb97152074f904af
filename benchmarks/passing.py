"""Images through a network: whole commands beside version 0.4.0 and what one would write instead.

Each row is a process of its own: its CPU seconds (user and system, of all threads), its wall time
and the most memory that it held. Photos are those of a data set beside the repository, where there
is one, else noise, with random weights.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from plain import session_of
from timing import in_turns, medians

from ltml.core.devices import kept_memory
from ltml.training.engine import Compiled
from ltml.training.folding import fold
from ltml.training.network import make_backbone

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT.parent / "shared" / "data"
BEFORE = "6c16f296"  # the last commit of version 0.4.0
STEPS = 60
TRAIN = f"train, {STEPS} steps of 32 at 224 px"
NETWORKS = {
    "mobilenet_v2": "mobilenet_v2_imagenet.pth",
    "timm/tf_efficientnet_lite0": "efficientnet_lite0.safetensors",
}


def measure(network: str) -> list[dict]:
    """Return a row a command of one of the networks: CPU seconds, wall seconds, peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = _before(folder)
        photos, weights = _photos(folder, network, NETWORKS[network])
        rows = [
            dict(network=network, **row) for row in _rows(folder, network, photos, weights, before)
        ]
        if before is not None:
            subprocess.run(["git", "worktree", "remove", "--force", before], cwd=ROOT, check=True)
    return rows


def _rows(folder: Path, network: str, photos: Path, weights: Path, before: Path | None):
    some = sorted((photos / "test").iterdir())[:1000]
    common = ["--backbone", network, "--weights", weights, "--val-split", "val"]
    fast = ["--engine", "openvino", "--precision", "bfloat16"]
    versions = {"0.4.0": before, "this": ROOT}
    for version, code in versions.items():
        if code is None:
            continue
        run = folder / "runs" / version
        yield _ltml(code, version, "probe", photos, *common, "--out", run)
        if version == "this" and find_spec("openvino"):
            out = ["--out", folder / "runs" / "fast"]
            yield _ltml(code, "this, openvino, bfloat16", "probe", photos, *common, *fast, *out)
        if version == "0.4.0" and network.startswith("timm/"):
            continue  # of a network of timm's from a file, 0.4.0 can probe, but not predict
        yield _ltml(code, version, "predict", run, some[0], what="predict of one photo")
        yield _ltml(code, version, "predict", run, *some, what=f"predict of {len(some):,} photos")
        if version == "this" and find_spec("openvino"):
            what = f"predict of {len(some):,} photos"
            yield _ltml(code, "this, openvino, bfloat16", "predict", run, *some, *fast, what=what)
    what, arguments = f"pass of {len(some):,} photos", (network, photos, weights)
    plain = _plain("torch", *arguments)
    yield _process("plain loop, DataLoader, batches of 64", what, plain)
    if find_spec("onnxruntime"):
        yield _process("ONNX Runtime, batches of 4", what, _plain("onnxruntime", *arguments))
    # In a process of its own, as every row: three runtimes, each with threads, meet there.
    command = [sys.executable, str(ROOT / "benchmarks" / "passing.py"), network, str(weights)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    yield from json.loads(said)
    if network != "mobilenet_v2":
        return
    for version, code in versions.items():
        if code is not None:
            options = ["--recipe", "photos", "--data", "folder", "--root", photos, *common]
            options += ["--image-size", "224", "--steps", str(STEPS)]
            options += ["--out", folder / "runs" / f"tuned {version}"]
            yield _ltml(code, version, "train", *options, what=TRAIN)


def _pass_alone(network: str, weights: Path) -> list[dict]:
    """CPU milliseconds an image, of what a pass computes: no decoding, one thread."""
    torch.set_num_threads(1)
    backbone = make_backbone(network, weights=weights).eval()
    backbone = backbone.to(memory_format=torch.channels_last)
    images = torch.randn(16, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    jobs = {}
    with torch.no_grad():
        folded = fold(backbone, images[:4])[0].frozen()
        jobs["torch, folded, batches of 16"] = lambda: folded(images)
        if find_spec("onnxruntime"):
            session, feed = session_of(backbone)
            jobs["ONNX Runtime, batches of 4"] = lambda: [
                session.run(None, {feed: some.contiguous().numpy()}) for some in images.split(4)
            ]
        if find_spec("openvino"):
            for precision in ("float32", "bfloat16"):
                program = Compiled(folded, images[:4], precision)
                jobs[f"OpenVINO, {precision}, batches of 4"] = lambda program=program: [
                    program(some) for some in images.split(4)
                ]
        with kept_memory(torch.device("cpu")):
            taken = medians(in_turns(jobs, seconds=20))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return [
        {"what": "pass alone, one thread", "by": name, "ms an image": 1e3 * s / len(images)}
        for name, s in taken.items()
    ]


def _ltml(code: Path, who: str, *command, what: str = "") -> dict:
    program = "from ltml.cli import main; sys.exit(main())"
    arguments = [program, *map(str, command), "--quiet"]
    row = _process(who, what or command[0], arguments, code)
    if "--out" in command:
        run = Path(command[command.index("--out") + 1])
        row["mAP"] = 100 * json.loads((run / "summary.json").read_text())["mAP"]
    return row


def _plain(how: str, *arguments) -> list[str]:
    program = f"sys.path[0] = {str(ROOT / 'benchmarks')!r}; from plain import main; main()"
    return [program, how, *map(str, arguments)]


# A process's ru_maxrss begins with what its parent held; where there is /proc, ask that.
_PEAK = """
import atexit, os, re, resource, sys
def _say():
    try:
        peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    open(os.environ["PEAK"], "w").write(str(peak / 2**20))
atexit.register(_say)
"""


def _process(who: str, what: str, arguments: list[str], code: Path = ROOT) -> dict:
    """Run a program of Python to its end, with the package as it is in ``code``."""
    with tempfile.TemporaryDirectory() as name:
        said, peak = Path(name) / "said", Path(name) / "peak"
        environment = os.environ | {"PYTHONPATH": str(code), "PEAK": str(peak)}
        command = [sys.executable, "-c", _PEAK + arguments[0], *arguments[1:]]
        with said.open("w") as stream:
            began = time.perf_counter()
            # Python looks into the working folder first.
            options = {"stdout": stream, "stderr": stream, "env": environment, "cwd": code}
            child = subprocess.Popen(command, **options)
            _, status, used = os.wait4(child.pid, 0)
            wall = time.perf_counter() - began
        if status:
            raise RuntimeError(f"{arguments} failed:\n{said.read_text()[-3000:]}")
        held = float(peak.read_text())
    cpu = used.ru_utime + used.ru_stime
    row = {"what": what, "by": who, "CPU s": cpu, "wall s": wall, "peak GiB": held}
    print(row, file=sys.stderr, flush=True)
    return row


def _before(folder: Path) -> Path | None:
    """Version 0.4.0 from the repository's history, where there is one."""
    command = ["git", "worktree", "add", "--quiet", "--detach", folder / "before", BEFORE]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return None if found.returncode else folder / "before"


def _photos(folder: Path, network: str, file: str) -> tuple[Path, Path]:
    """Photos and weights: real ones, or noise."""
    if (PHOTOS / "voc_lt_proxy").is_dir():
        return PHOTOS / "voc_lt_proxy", PHOTOS / "weights" / file
    photos = folder / "photos"
    random = torch.Generator().manual_seed(0)
    for split, count in (("train", 300), ("val", 200), ("test", 400)):
        (photos / split).mkdir(parents=True, exist_ok=True)
        lines = ["image,labels"]
        for i in range(count):
            coarse = torch.rand(1, 3, 28, 36, generator=random)
            image = torch.nn.functional.interpolate(coarse, (224, 288), mode="bilinear")[0]
            image = (255 * image).byte().permute(1, 2, 0).numpy()
            Image.fromarray(image).save(photos / split / f"{i}.jpg", quality=80)
            lines.append(f"{split}/{i}.jpg,{'a b'[:: 1 + i % 2]}")
        (photos / f"{split}.csv").write_text("\n".join(lines) + "\n")
    weights = folder / "weights.pth"
    backbone = make_backbone(network)
    torch.save(getattr(backbone, "model", backbone).state_dict(), weights)
    return photos, weights


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    said = []
    found = {(row["network"], row["what"], row["by"]): row for row in rows}

    def ratio(text, most, above, below, measure="CPU s", less=None):
        if above in found and below in found:
            values = [found[key][measure] for key in (above, below)]
            if less:
                values = [
                    v - found[(*key[:1], less, key[2].split(",")[0])][measure]
                    for v, key in zip(values, (above, below), strict=True)
                ]
            share = values[0] / values[1]
            said.append((f"{text} at most {most:.2f} times: {share:.2f}", share <= most))

    fast = "this, openvino, bfloat16"
    for network in NETWORKS:
        new, old, quick = ((network, "probe", by) for by in ("this", "0.4.0", fast))
        ratio(f"{network}: probe, CPU s of 0.4.0's", 1 / 2.3, new, old)
        ratio(f"{network}: probe by OpenVINO in bfloat16, CPU s of 0.4.0's", 1 / 3.3, quick, old)
        ratio(f"{network}: probe, memory of 0.4.0's", 1 / 2, new, old, "peak GiB")
        for by, most in ((new, 0.02), (quick, 0.4)):
            if by in found and old in found:
                off = abs(found[by]["mAP"] - found[old]["mAP"])
                said.append((f"{network}: mAP of {by[2]} within {most}: {off:.3f}", off <= most))
        one = "predict of one photo"
        many = next(
            (w for n, w, _ in found if n == network and w.startswith("predict of") and w != one), ""
        )
        ratio(
            f"{network}: {many} less {one}, CPU s of 0.4.0's",
            1 / 2.3,
            (network, many, "this"),
            (network, many, "0.4.0"),
            less=one,
        )
        ratio(
            f"{network}: the same by OpenVINO in bfloat16",
            1 / 3.3,
            (network, many, fast),
            (network, many, "0.4.0"),
            less=one,
        )
        ratio(
            f"{network}: {one}, CPU s of 0.4.0's",
            0.7,
            (network, one, "this"),
            (network, one, "0.4.0"),
        )
        alone = "pass alone, one thread"
        ours, theirs = "torch, folded, batches of 16", "ONNX Runtime, batches of 4"
        ratio(
            f"{network}: pass alone, of ONNX Runtime's float32",
            1.35,
            (network, alone, ours),
            (network, alone, theirs),
            "ms an image",
        )
        plain = (network, many.replace("predict", "pass"), "plain loop, DataLoader, batches of 64")
        ratio(f"{network}: {many}, CPU s of a plain loop's", 1, (network, many, "this"), plain)
    new, old = (("mobilenet_v2", TRAIN, by) for by in ("this", "0.4.0"))
    ratio("mobilenet_v2: train, CPU s of 0.4.0's", 0.7, new, old)
    if new in found:
        peak = found[new]["peak GiB"]
        said.append(
            (f"mobilenet_v2: {TRAIN}: at most 2.5 GB: {peak * 1.0737:.2f}", peak * 1.0737 <= 2.5)
        )
    return said


if __name__ == "__main__":
    print(json.dumps(_pass_alone(*sys.argv[1:])))
