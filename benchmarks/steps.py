"""The training step against a bare loop, and what the ledger costs of it."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import in_turns, medians

from ltml import GradientLedger, LabelMatrix, LongTailData, Recipe, Split
from ltml.core.ranks import Ranks
from ltml.training.setup import completed
from ltml.training.train import Training

# name, backbone, image side, batch, classes: the second at the size that the device can bear
NETWORKS = {
    "cpu": [("small ConvNet", "small", 40, 64, 20), ("ResNet-50", "resnet50", 96, 8, 20)],
    "cuda": [("small ConvNet", "small", 40, 64, 20), ("ResNet-50", "resnet50", 224, 32, 80)],
}


def _data(side: int, classes: int) -> LongTailData:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (512, 3, side, side), dtype=torch.uint8, generator=random)
    Y = (torch.rand(512, classes, generator=random) < 2 / classes).int()
    Y[:classes, :] |= torch.eye(classes, dtype=torch.int32)
    split = Split(images, LabelMatrix(Y), [str(i) for i in range(512)])
    return LongTailData("random", split, split.subset(range(64)))


def measure(device: str) -> list[dict]:
    """Return a row a network."""
    rows = []
    for name, backbone, side, batch, classes in NETWORKS[device]:
        data = _data(side, classes)
        options = {"steps": 10**6, "image_size": side, "allow_leaks": True}
        recipe = Recipe(backbone=backbone, batch_size=batch, **options)
        recipe = completed(replace(recipe, device=device), data.train)
        ours, bare = (Training(recipe, data, Path("x"), Ranks(), progress=False) for _ in range(2))
        batches = ours.train.batches(iter(ours.sampler), seed=0)
        images, targets = next(bare.train.batches([torch.arange(batch)]))
        ours.model.train()
        bare.model.train()
        autocast = torch.autocast(device, torch.bfloat16, enabled=device == "cuda")

        def our_step(ours=ours, batches=batches):
            ours.take_step(ours.model, *next(batches))

        def bare_step(bare=bare, images=images, targets=targets, autocast=autocast):
            bare.optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = bare.model(images)
            F.binary_cross_entropy_with_logits(logits.float(), targets).backward()
            bare.optimizer.step()

        jobs = {"ours": our_step, "bare": bare_step} | _ledger_jobs(batch, classes, ours)
        seconds = 12 if backbone == "small" else 30
        taken = medians(in_turns(jobs, seconds=seconds, device=device))
        ledger = taken["watched"] - taken["not watched"]
        rows.append(
            {
                "device": device,
                "network": f"{name}, {batch} x {side} px",
                "step, ms": 1e3 * taken["ours"],
                "bare loop, ms": 1e3 * taken["bare"],
                "speed of the bare loop, %": 100 * taken["bare"] / taken["ours"],
                "ledger, ms": 1e3 * ledger,
                "ledger's share, %": 100 * ledger / taken["ours"],
            }
        )
    return rows


def _ledger_jobs(batch: int, classes: int, training: Training) -> dict:
    """What the ledger adds is too little to be seen in whole steps: it is timed by itself."""
    device = training.device
    weight = training.model.head.classifier.weight
    source = torch.randn(batch, classes, device=device, requires_grad=True)
    targets = (torch.rand(batch, classes, device=device) < 0.1).float()
    ledger = GradientLedger(classes, device=device)
    gradient = torch.randn_like(weight)

    def backward(watched: bool) -> None:
        logits = source * 1
        if watched:
            ledger.watch(logits, targets)
            ledger.add_weight(gradient)
        F.binary_cross_entropy_with_logits(logits, targets).backward()

    return {"watched": lambda: backward(True), "not watched": lambda: backward(False)}


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    said = []
    for row in rows:
        most = 3 if "small" in row["network"] else 1
        share, speed = row["ledger's share, %"], row["speed of the bare loop, %"]
        where = f"{row['device']}, {row['network']}"
        said.append((f"{where}: ledger at most {most} % of a step: {share:.2f} %", share <= most))
        said.append((f"{where}: at least 95 % of a bare loop's speed: {speed:.1f} %", speed >= 95))
    return said
