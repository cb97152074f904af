"""Forward and backward of each loss, against torch's binary cross-entropy with logits."""

import torch
import torch.nn.functional as F
from timing import bandwidth, in_turns, medians

from ltml import LOSSES, LabelMatrix, make_loss

SHAPES = [(64, 20), (256, 80), (1024, 1203)]
_MASKED = ", half unknown"


def measure(device: str) -> list[dict]:
    """Return a row a shape and loss."""
    rows, speed = [], bandwidth(device)
    # A freed large block keeps later ones in the process's own memory, as in any training; else
    # each temporary is fetched anew from the system, and that is what would be timed. (glibc keeps
    # blocks up to the size of the largest that was freed, of at most 32 MiB with its header.)
    torch.ones(2**23 - 2**10, device=device)
    for B, C in SHAPES:
        torch.manual_seed(0)
        logits = torch.randn(B, C, device=device, requires_grad=True)
        targets = (torch.rand(B, C, device=device) < 0.02).float()
        targets[0] = 1  # no class without a positive

        partial = torch.where(torch.rand(B, C, device=device) < 0.5, torch.nan, targets)

        def job(loss, y=targets, z=logits):
            z.grad = None
            loss(z, y).backward()

        labels = LabelMatrix(targets)
        losses = {"torch": F.binary_cross_entropy_with_logits}
        losses |= {name: make_loss(name, labels).to(device) for name in LOSSES}
        jobs = {name: lambda loss=loss, job=job: job(loss) for name, loss in losses.items()}
        for name in ("bce", "dgb"):
            loss = losses[name]
            jobs[f"{name}{_MASKED}"] = lambda loss=loss, job=job, y=partial: job(loss, y)
        taken = medians(in_turns(jobs, seconds=8 if B * C > 10**5 else 3, device=device))
        # Read logits and targets, write the gradient: 12 bytes an element in float32.
        floor = 12 * B * C / speed
        rows += [
            {
                "device": device,
                "shape": f"{B} x {C}",
                "loss": name,
                "ms": 1e3 * seconds,
                "times torch's BCE": seconds / taken["torch"],
                "times the memory's speed": seconds / floor,
            }
            for name, seconds in taken.items()
        ]
    return rows


def targets_met(rows: list[dict]) -> list[tuple[str, bool]]:
    """Say what was aimed at, and whether it was reached."""
    said = []
    for device in {row["device"] for row in rows}:
        for shape, most in (("64 x 20", 2.5), ("256 x 80", 2.0), ("1024 x 1203", 1.3)):
            at = {r["loss"]: r for r in rows if r["device"] == device and r["shape"] == shape}
            ratio = at["dgb"]["times torch's BCE"]
            said.append(
                (f"{device}: DGB at {shape} at most {most} times BCE: {ratio:.2f}", ratio <= most)
            )
        for name in ("bce", "dgb"):
            ratio = at[name + _MASKED]["ms"] / at[name]["ms"]
            text = f"{device}: {name} with half of all labels unknown at most 1.3 times"
            said.append((f"{text} itself at {shape}: {ratio:.2f}", ratio <= 1.3))
        for other in ("asl", "db"):
            faster = at["dgb"]["ms"] < at[other]["ms"]
            said.append(
                (
                    f"{device}: DGB faster than {other}: {at['dgb']['ms']:.2f} ms against "
                    f"{at[other]['ms']:.2f} ms",
                    faster,
                )
            )
    return said
