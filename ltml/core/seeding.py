"""Randomness that can be taken up at any step: each draw is a function of (seed, stream, step)."""

import zlib

import numpy as np
import torch


def generator(
    seed: int, stream: str, step: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Return a fresh generator for one step of one stream of randomness.

    Nothing carries over from step to step, so a training that stops and resumes at step ``n``, or
    that runs on several ranks, draws exactly what an uninterrupted one on one rank draws.

    Args:
        seed: seed of the whole training.
        stream: name of what is drawn, for example ``"augment"``; streams are independent.
        step: number of draws of this stream that came before.
        device: device of the draws; other devices draw other numbers.

    Example:
        >>> torch.rand(2, generator=generator(0, "augment", 7)).equal(
        ...     torch.rand(2, generator=generator(0, "augment", 7)))
        True
    """
    words = np.random.SeedSequence((seed, zlib.crc32(stream.encode()), step)).generate_state(2)
    return torch.Generator(device=device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
