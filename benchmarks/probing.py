"""The closed form: its sums, its solution, and a whole probe beside the passes it is made of."""

import tempfile
from pathlib import Path

import torch
from timing import in_turns, medians

from ltml import LabelMatrix, LongTailData, Split, probe
from ltml.core.discriminant import SharedCovariance
from ltml.training.network import make_backbone

ROWS, DIM, CLASSES = 100_000, 1280, 1203
IMAGES, SIDE = 1142, 224  # as VOC-LT, at the usual size


def measure(device: str) -> list[dict]:
    """Return a row a part: its seconds, and the ratio to what bounds it."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, DIM, device=device, dtype=torch.float64)
    y = (torch.rand(ROWS, 20, device=device) < 0.1).double()
    closed = SharedCovariance(20, DIM, device=device)

    def update():
        for start in range(0, ROWS, 4096):
            closed.update(x[start : start + 4096], y[start : start + 4096])

    bare = {"bare": lambda: x.T @ x}
    sums = medians(in_turns(bare | {"ours": update}, seconds=15, device=device))
    many = SharedCovariance(CLASSES, DIM, device=device)
    many.update(x[:5000], (torch.rand(5000, CLASSES, device=device) < 0.01).double())
    S, right = many.covariance, torch.randn(DIM, CLASSES, device=device, dtype=torch.float64)
    jobs = {"ours": lambda: many.solve(1.0), "bare": lambda: torch.linalg.solve(S, right)}
    solved = medians(in_turns(jobs, seconds=5, device=device))
    rows = [
        _row(f"sums of {ROWS:,} x {DIM} features", sums["ours"], sums["bare"]),
        _row(f"solution for {CLASSES:,} classes", solved["ours"], solved["bare"]),
    ]
    whole = medians(in_turns(_probe_and_passes(device), seconds=40, device=device))
    rows.append(_row(f"probe of {IMAGES} + {IMAGES} images", whole["probe"], whole["passes"]))
    return [{"device": device, **row} for row in rows]


def _row(name: str, ours: float, bare: float) -> dict:
    return {"what": name, "s": ours, "bare, s": bare, "times bare": ours / bare}


def _probe_and_passes(device: str) -> dict:
    torch.manual_seed(0)
    names = [f"class {c}" for c in range(20)]
    pixels = torch.randint(256, (2 * IMAGES, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = LabelMatrix(torch.rand(2 * IMAGES, 20) < 0.1, names)
    parts = [
        Split(pixels[part], labels.subset(part), [str(i) for i in part])
        for part in torch.arange(2 * IMAGES).numpy().reshape(2, -1)
    ]
    data = LongTailData("noise", *parts)
    net = make_backbone("mobilenet_v2").to(device, memory_format=torch.channels_last).eval()
    folder = Path(tempfile.mkdtemp())

    def passes():
        """Training images and their mirror images, and test images, in batches as the probe's."""
        with torch.no_grad():
            for images in (data.train.images, data.train.images.flip(3), data.test.images):
                for part in images.split(64):
                    part = part.to(device).float().div(255)
                    net(part.contiguous(memory_format=torch.channels_last))

    options = {"backbone": "mobilenet_v2", "weights": None, "device": device, "progress": False}
    options |= {"augment": "light", "overwrite": True, "out": folder / "run"}
    return {"probe": lambda: probe(data, **options), "passes": passes}


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    said = []
    for row in rows:
        most = {"sums": 1.3, "probe": 1.05}.get(row["what"].split()[0])
        if most:
            text = f"{row['device']}: {row['what']} at most {most} times bare"
            said.append((f"{text}: {row['times bare']:.2f}", row["times bare"] <= most))
    return said
