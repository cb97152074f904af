"""Batches on the device: images decoded once, kept as bytes where they fit, augmented in place."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ltml.data import LongTailData, Split
from ltml.data.augment import make_augmentation
from ltml.errors import InputError
from ltml.seeding import generator

__all__ = ["Loader", "decode_image", "in_memory", "not_shown"]

# ImageNet's statistics, which torchvision's weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PREFETCH = 4  # batches decoded ahead where images do not fit in memory


def decode_image(path: Path, size: int) -> Tensor:
    """Read an image file upright, as RGB, squeezed to a square.

    Squeezing keeps every object in view; cropping would cut labelled objects off.

    Args:
        path: a file that Pillow can read; greyscale, palette, CMYK, 16-bit and rotated ones too.
        size: side of the result in pixels.

    Returns:
        uint8 ``(3, size, size)``.

    Raises:
        InputError: naming the file, if it is missing or broken.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # lets JPEG decode at a fraction of its size
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":
                image = _in_8_bits(image)
            if image.mode == "P":
                image = image.convert("RGBA")  # else Pillow warns of a transparent palette
            image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    except Exception as error:  # Pillow raises many kinds over damaged files
        raise InputError(
            f"image {str(path)!r} cannot be decoded ({str(error) or type(error).__name__}); "
            "replace the file, or drop it from the split"
        ) from error


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip to 255."""
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("its pixels are not of 8 or 16 bits")
    return Image.fromarray((pixels.astype(np.float32) / 257).astype(np.uint8))


class Loader:
    """Turn index batches into ``(images, targets)`` on the device.

    Image files are decoded once, by threads (Pillow releases the interpreter while it decodes), and
    kept as uint8 on the device, or in the machine's memory, whichever first holds them with room to
    spare; else they are decoded batch by batch, ahead of use.

    Args:
        split: images and labels.
        image_size: side of the square images in pixels.
        device: where batches are wanted.
        augment: a name of :data:`ltml.data.augment.AUGMENTATIONS`, used where a seed is given.
        keep: ``"device"``, ``"memory"``, ``"files"``, or None to choose by the room there is.
        workers: decoding threads; default: one a core.
        progress: show a bar while decoding.

    Raises:
        InputError: if an image is broken, or an argument is out of range.
    """

    def __init__(
        self,
        split: Split,
        *,
        image_size: int,
        device: str | torch.device = "cpu",
        augment: str = "none",
        keep: str | None = None,
        workers: int | None = None,
        progress: bool = False,
    ):
        if image_size < 8:
            raise InputError(f"image_size={image_size} is too small; give at least 8 pixels")
        if keep not in (None, "device", "memory", "files"):
            raise InputError(f"keep={keep!r} is unknown; choose device, memory, files or None")
        self.split, self.image_size, self.device = split, image_size, torch.device(device)
        self.workers = workers or len(os.sched_getaffinity(0))
        self.keep = keep or _where_it_fits(len(split) * 3 * image_size**2, self.device)
        self.pixels = None
        if self.keep != "files":
            self.pixels = self._decode_all(progress)
            if self.keep == "device":
                self.pixels = self.pixels.to(self.device)
        self._padded = split.labels.padded().to(self.device)
        self._random = make_augmentation(augment)
        self._augment = v2.Compose([*self._random, v2.Normalize(MEAN, STD)])
        self._plain = v2.Normalize(MEAN, STD)

    def _decode_all(self, progress: bool) -> Tensor:
        images, size = self.split.images, self.image_size
        if isinstance(images, Tensor):
            if images.shape[-2:] == (size, size):
                return images
            return torch.cat(
                [v2.functional.resize(part, [size, size]) for part in images.split(1024)]
            )
        out = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
        bar = tqdm(total=len(images), desc="decode", unit="img", disable=not_shown(progress))
        with ThreadPoolExecutor(self.workers) as pool, bar:
            try:
                for i, image in enumerate(pool.map(lambda p: decode_image(p, size), images)):
                    out[i] = image
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # do not decode the rest to report one
                raise
        return out

    def targets(self, index: Tensor) -> Tensor:
        """``(B, C)`` float targets of the given images, made on the device."""
        C = self.split.labels.num_classes
        out = torch.zeros(len(index), C + 1, device=self.device)
        return out.scatter_(1, self._padded[index.to(self.device)], 1.0)[:, :C]

    def batches(
        self,
        indices: Iterable[Tensor],
        *,
        seed: int | None = None,
        numbers: Iterable[int] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a batch for every index batch.

        Args:
            indices: LongTensors of image indices, each ``(B,)``.
            seed: augment at random, as a function of the seed and the batch's number; None: do not.
            numbers: of the batches, for training that goes on or is one of several; default: from
                0.

        Yields:
            images ``(B, 3, S, S)`` float, normalised, and targets ``(B, C)`` float.
        """
        numbers = count() if numbers is None else numbers
        # numbers last: zip takes from its first argument before it sees the end of another
        for (index, pixels), step in zip(self._pixels(indices), numbers, strict=False):
            images = pixels.float() / 255
            if seed is None:
                images = self._plain(images)
            else:
                random = generator(seed, "augment", step, self.device)
                for transform in self._random:
                    transform.generator = random
                images = self._augment(images)
            # convolutions are faster so, on CPUs as on GPUs
            yield images.contiguous(memory_format=torch.channels_last), self.targets(index)

    def _pixels(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each index batch with its uint8 pixels on the device."""
        if self.pixels is not None:
            for index in indices:
                pixels = self.pixels[index.to(self.pixels.device)]
                yield index, pixels.to(self.device, non_blocking=True)
            return
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque = deque()
            try:
                for index in indices:
                    files = [self._file(i) for i in index.tolist()]
                    waiting.append((index, [pool.submit(*file) for file in files]))
                    if len(waiting) > _PREFETCH:
                        yield self._collect(*waiting.popleft())
                while waiting:
                    yield self._collect(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _file(self, i: int):
        images, size = self.split.images, self.image_size
        if isinstance(images, Tensor):
            return v2.functional.resize, images[i], [size, size]
        return decode_image, images[i], size

    def _collect(self, index: Tensor, futures: Sequence) -> tuple[Tensor, Tensor]:
        pixels = torch.stack([future.result() for future in futures])
        return index, pixels.to(self.device, non_blocking=True)


def in_memory(data: LongTailData, image_size: int, *, progress: bool = False) -> LongTailData:
    """Decode a data set's images once, for several trainings, where they fit in memory."""

    def decoded(split: Split) -> Split:
        pixels = Loader(split, image_size=image_size, progress=progress).pixels
        return split if pixels is None else replace(split, images=pixels)

    return replace(data, train=decoded(data.train), test=decoded(data.test))


def not_shown(progress: bool) -> bool | None:
    """``disable`` of a tqdm bar: None leaves it out where nobody watches, as in a log file."""
    return None if progress else True


def _where_it_fits(size: int, device: torch.device) -> str:
    """Choose where ``size`` bytes are kept so that at most half of what is free is taken."""
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 2:
        return "device"
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not told on this system
        free = 8 * 2**30
    return "memory" if size < free / 2 else "files"
