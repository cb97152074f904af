"""A backbone's weights from a file: whatever program saved them, and only this network's."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ltml.core.errors import InputError

log = logging.getLogger(__name__)

# Wrappers that torch puts into the middle of names.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


class _Inert:
    """Stands for what a checkpoint holds beside tensors: a setting, a path, a callback's state."""

    def __init__(self, *args, **options):
        pass

    def __setstate__(self, state):
        pass


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read every tensor of a file, by its names on the way there, joined by dots.

    No code of the file is run: objects of its own that a checkpoint holds are passed over.

    Args:
        path: ``.safetensors``, or what :func:`torch.save` wrote: a ``state_dict``, or a checkpoint
            of a training program, such as Lightning's.

    Raises:
        InputError: if it cannot be read, or holds no tensor.
    """
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = _unpickle(path)
    except ImportError as error:
        raise InputError(f"{error.name} is missing; try: pip install 'ltml[timm]'") from error
    except Exception as error:  # many kinds, none of them meant for people
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"weights {str(path)!r} cannot be read: {reason}") from error
    entries = dict(_tensors(content, ())) if isinstance(content, Mapping) else {}
    if not entries:
        raise InputError(f"weights {str(path)!r} hold no state_dict; save model.state_dict()")
    return entries


def _unpickle(path: str | Path):
    """Load tensors and plain values; whatever else there is becomes inert."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:
            names = []  # of the old format, or no pickle at all
        if not names:
            raise
        stand_ins = [(type("Inert", (_Inert,), {}), name) for name in names]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)


def _tensors(content: Mapping, above: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    for key, value in content.items():
        parts = *above, *(part for part in str(key).split(".") if part not in _WRAPPERS)
        if isinstance(value, Tensor):
            yield ".".join(parts), value
        elif isinstance(value, Mapping):
            yield from _tensors(value, parts)


def fitting(
    network: nn.Module,
    entries: Mapping[str, Tensor],
    where: str,
    *,
    after: frozenset[str] = frozenset(),
    better: Callable[[dict[str, Tensor]], str | None] = lambda entries: None,
) -> dict[str, Tensor]:
    """Find a network's own entries in a file, under whatever prefix they stand there.

    Args:
        network: module whose ``state_dict`` is looked for.
        entries: named tensors, as of :func:`read_weights`.
        where: name of the file in messages.
        after: children of the whole network that come after its feature map: a classifier's.
        better: function that names the network that a file's entries are of.

    Returns:
        what fits, by the network's own names.

    Raises:
        InputError: if an entry is missing, of another shape or of another network, or if two sets
            of entries fit equally well.
    """
    own = network.state_dict()
    prefix, others = _prefix(own, entries)
    inside = {
        key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)
    }
    fits = {k: v for k, v in inside.items() if k in own and v.shape == own[k].shape}
    # Old files lack num_batches_tracked, which only counts.
    lacking = [k for k in own if k not in fits and not k.endswith("num_batches_tracked")]
    # Buffers that are computed anew were saved by former versions.
    buffers = {f"{m}.{b}".lstrip(".") for m, part in network.named_modules() for b in part._buffers}
    foreign = [
        key
        for key in inside
        if key not in own and key not in buffers and key.partition(".")[0] not in after
    ]
    if lacking or foreign:
        if lacking:
            what = (
                f"{len(lacking)} of {len(own)} entries are missing or of another shape, first "
                f"{lacking[0]!r}"
            )
        else:
            what = f"{len(foreign)} of its entries are of another network, first {foreign[0]!r}"
        name = better(inside)
        remedy = f"they fit {name}" if name else "give weights of this backbone"
        raise InputError(f"weights {where} do not fit the backbone: {what}; {remedy}")
    rivals = [p for p in others if any((entries[p + k] != v).any() for k, v in fits.items())]
    if rivals:
        first, second = (repr(p.rstrip(".") or "the file itself") for p in (prefix, rivals[0]))
        raise InputError(
            f"weights {where} hold two networks that fit, {first} and {second}; save the "
            "state_dict of the one that is meant to a file of its own"
        )
    left = ", ".join(key for key in inside if key not in fits) or "nothing"
    log.info(
        "weights %s: %d entries loaded%s; left (the old classifier): %s",
        *(where, len(fits), f" from {prefix.rstrip('.')}" if prefix else "", left),
    )
    return fits


def misfits(network: nn.Module, entries: Mapping[str, Tensor]) -> int:
    """Count a network's entries that a file has not, or in another shape."""
    own = network.state_dict() if entries else {}
    prefix, _ = _prefix(own, entries)
    return sum(
        prefix + k not in entries or entries[prefix + k].shape != v.shape for k, v in own.items()
    )


def _prefix(own: Mapping[str, Tensor], entries: Mapping[str, Tensor]) -> tuple[str, list[str]]:
    """Find what stands before a network's names, and other prefixes that fit as well."""
    found: Counter[str] = Counter()
    for key, value in entries.items():
        name = key
        while True:
            if name in own and own[name].shape == value.shape:
                found[key[: len(key) - len(name)]] += 1
            _, dot, name = name.partition(".")
            if not dot:
                break
    if not found:
        return "", []
    most = max(found.values())
    best = sorted((p for p, n in found.items() if n == most), key=lambda p: ("ema" in p, len(p), p))
    # A moving average beside the weights themselves is no rival of theirs.
    return best[0], [p for p in best[1:] if "ema" not in p]
