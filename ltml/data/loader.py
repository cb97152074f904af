"""Batches on the device: images decoded once, kept as bytes where they fit, augmented in place."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ltml.core.devices import choose_device, cores, free_memory
from ltml.core.errors import InputError
from ltml.core.files import quote
from ltml.core.options import Bounds, choose, fitted
from ltml.core.seeding import generator
from ltml.data.augment import AUGMENTATIONS
from ltml.data.image import BILINEAR, BOX, Resampling, read_image, square
from ltml.data.splits import LongTailData, Split

# ImageNet's statistics, which torchvision's weights expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PREFETCH = 4  # batches decoded ahead where images do not fit in memory


def decode_image(
    source, size: int, name: str | None = None, resample: Resampling = BILINEAR
) -> Tensor:
    """Read an image of any kind by the rule of :mod:`ltml.data.image`, squeezed to a square.

    Args:
        source: a file, PIL image, array or tensor.
        size: side of the result in pixels.
        name: name of the image in messages.
        resample: Pillow's filter; the rule's own is bilinear.

    Returns:
        uint8 ``(3, size, size)``.

    Raises:
        InputError: naming it, if it is missing, broken, or no image.
    """
    pixels = square(read_image(source, name), size, resample)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Loader:
    """Turn index batches into ``(images, targets)`` on the device.

    Images are decoded once, by threads, and kept as uint8 on the device or in memory, whichever
    first holds them with room to spare; else they are decoded batch by batch, ahead of use.

    Args:
        split: images and labels.
        image_size: side of the square images in pixels.
        device: device of the batches.
        augment: a name of :data:`ltml.data.augment.AUGMENTATIONS`, used where a seed is given.
        mean: per-channel mean for normalisation, shape (3,); default: ImageNet's.
        std: per-channel standard deviation for normalisation, shape (3,).
        keep: ``"device"``, ``"memory"``, ``"files"``, or None to choose by the room there is.
        workers: number of decoding threads; default: one a core.
        progress: whether to show a bar while decoding.
        broken: dictionary that takes the error of each image that cannot be decoded, by its number,
            and the image is black; default: the error is raised.

    Raises:
        InputError: if an image is broken, or an argument is out of range.

    Example:
        >>> import ltml
        >>> split = ltml.data.load("pictograms", scale=0.1).train
        >>> images, targets = next(Loader(split, image_size=24).batches([[0, 5]]))
        >>> images.shape, targets.shape
        (torch.Size([2, 3, 24, 24]), torch.Size([2, 20]))
    """

    def __init__(
        self,
        split: Split,
        *,
        image_size: int,
        device: str | torch.device = "cpu",
        augment: str = "none",
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        keep: str | None = None,
        workers: int | None = None,
        progress: bool = False,
        broken: dict[int, InputError] | None = None,
    ):
        image_size = fitted("image_size", image_size, Annotated[int, Bounds("(-inf, 10000]")])
        workers = fitted("workers", workers, Annotated[int, Bounds("[1, 1e4]")] | None)
        if image_size < 8:
            raise InputError(f"image_size={image_size} is too small; give at least 8 pixels")
        if not isinstance(keep, str | None) or keep not in (None, "device", "memory", "files"):
            raise InputError(f"keep={quote(keep)} is unknown; choose device, memory, files or None")
        self._random = choose("augment", augment, AUGMENTATIONS)()
        self.mirrors = any(getattr(transform, "flip", 0) for transform in self._random)
        self._plain = v2.Normalize(list(mean), list(std), inplace=True)
        self._augment = v2.Compose([*self._random, self._plain])
        decoded = split.originals is not None and split.images.ndim == 4
        if decoded and split.images.shape[2:] != (image_size, image_size):
            split = replace(split, images=split.originals, originals=None)
        self.split, self.image_size, self.device = split, image_size, choose_device(device)
        self.workers, self.broken = workers or cores(), broken
        # A bank keeps feature maps (N, V, D, h, w), to which no picture of the images is left.
        self.maps = isinstance(split.images, Tensor) and split.images.ndim == 5
        size = split.images.nbytes if self.maps else len(split) * 3 * image_size**2
        room = _where_it_fits(size, self.device)
        self.fits = room != "files"
        self.keep = keep or room
        if self.keep == "files" and (self.maps or self._ready()):
            self.keep = "memory"  # as it is; maps may be mapped from a file
        # Unknown entries are too many to lie on a device for all images.
        self._padded = None if split.labels.has_unknown else split.labels.padded().to(self.device)
        self.pixels = None if self.keep == "files" else self._decode_all(progress)
        if self.keep == "device":
            self.pixels = self.pixels.to(self.device)

    def _ready(self) -> bool:
        """Whether the images are decoded already, at the size that is wanted."""
        images, shape = self.split.images, (3, self.image_size, self.image_size)
        return (
            isinstance(images, Tensor)
            and images.dtype == torch.uint8
            and (images.shape[1:] == shape)
        )

    def _decode_all(self, progress: bool) -> Tensor:
        images, size = self.split.images, self.image_size
        if self.maps or self._ready():
            return images
        out = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
        bar = tqdm(total=len(images), desc="decode", unit="img", disable=not_shown(progress))
        with bar:
            for index, pixels in self._decoded(torch.arange(len(images)).split(64)):
                out[index] = pixels
                bar.update(len(index))
        return out

    def thumbnails(self, side: int) -> Tensor:
        """Average each image over squares: uint8 ``(N, 3, side, side)`` on the CPU.

        Raises:
            InputError: naming it, if an image that is not kept cannot be decoded.
        """
        if self.pixels is not None:
            parts = (F.adaptive_avg_pool2d(x.float(), side) for x in self.pixels.split(256))
            return torch.cat([part.round().byte().cpu() for part in parts])
        with ThreadPoolExecutor(self.workers) as pool:
            found = pool.map(lambda i: self._one(i, side, BOX), range(len(self.split)))
            try:
                return torch.stack(list(found))
            except InputError:
                pool.shutdown(cancel_futures=True)
                raise

    def image(self, i: int) -> Tensor:
        """One image: uint8 ``(3, S, S)``."""
        return self._one(i) if self.pixels is None else self.pixels[i].cpu()

    def targets(self, index: Tensor) -> Tensor:
        """Return ``(B, C)`` float targets of the given images on the device, NaN where unknown."""
        labels, C = self.split.labels, self.split.labels.num_classes
        if self._padded is None:
            return labels.dense(index.cpu().numpy()).to(self.device, non_blocking=True)
        out = torch.zeros(len(index), C + 1, device=self.device)
        return out.scatter_(1, self._padded[index.to(self.device, non_blocking=True)], 1.0)[:, :C]

    def batches(
        self,
        indices: Iterable[Sequence[int] | Tensor],
        *,
        seed: int | None = None,
        numbers: Iterable[int] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a batch for every index batch.

        Args:
            indices: image indices of each batch: a list, an array or a LongTensor ``(B,)``.
            seed: augment at random, as a function of the seed and the batch's number; None: do not.
            numbers: numbers of the batches, for resumed or parallel training; default: 0, 1, 2...

        Yields:
            images ``(B, 3, S, S)`` float, normalised, and targets ``(B, C)`` float, NaN where
            unknown.
        """
        numbers = count() if numbers is None else numbers
        # numbers last: zip takes from its first argument before it sees the end of another
        for (index, pixels), step in zip(self._kept(indices), numbers, strict=False):
            random = None if seed is None else generator(seed, "augment", step, self.device)
            if self.maps:
                view = 0
                if random is not None and pixels.shape[1] > 1:
                    size, device = (len(index),), self.device
                    view = torch.randint(pixels.shape[1], size, generator=random, device=device)
                images = pixels[torch.arange(len(index), device=self.device), view].float()
            elif random is None:
                images = self._plain(_floats(pixels))
            else:
                for transform in self._random:
                    transform.generator = random
                images = self._augment(_floats(pixels))
            yield images.contiguous(memory_format=torch.channels_last), self.targets(index)

    def views(self, indices: Iterable[Sequence[int] | Tensor]) -> Iterator[Tensor]:
        """Yield every index batch in all its plain views, ``(B, V, 3, S, S)``: each image, and its
        mirror image where the augmentation mirrors; of feature maps, those there are."""
        for _, pixels in self._kept(indices):
            if self.maps:
                yield pixels.float()
            else:
                images = self._plain(_floats(pixels))
                yield torch.stack([images, images.flip(3)] if self.mirrors else [images], 1)

    def _kept(self, indices) -> Iterator[tuple[Tensor, Tensor]]:
        """Index batches, and on the device what is kept of their images, or decoded now."""
        indices = (torch.as_tensor(index) for index in indices)
        if (kept := self.pixels) is None:
            batches = self._decoded(indices)
        else:
            batches = ((index, kept[index.to(kept.device, non_blocking=True)]) for index in indices)
        for index, pixels in batches:
            yield index, pixels.to(self.device, non_blocking=True)

    def _decoded(self, indices: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Decode each index batch, a few batches ahead of use."""
        pool, waiting = ThreadPoolExecutor(self.workers), deque()
        try:
            for index in indices:
                waiting.append((index, [pool.submit(self._one, i) for i in index.tolist()]))
                if len(waiting) > _PREFETCH:
                    index, futures = waiting.popleft()
                    yield index, torch.stack([future.result() for future in futures])
            for index, futures in waiting:
                yield index, torch.stack([future.result() for future in futures])
        finally:
            pool.shutdown(cancel_futures=True)  # do not decode the rest to report one

    def _one(self, i: int, size: int | None = None, resample: Resampling = BILINEAR) -> Tensor:
        image, size, ids = self.split.images[i], size or self.image_size, self.split.ids
        name = None if isinstance(image, str | os.PathLike) else repr(str(ids[i]))
        try:
            return decode_image(image, size, name, resample)
        except InputError as error:
            if self.broken is None:
                raise
            self.broken[i] = error
            return torch.zeros(3, size, size, dtype=torch.uint8)


def _floats(pixels: Tensor) -> Tensor:
    """Bytes to floats in [0, 1], channels last: convolutions are faster so, on CPUs and GPUs."""
    return pixels.to(torch.float32, memory_format=torch.channels_last).div_(255)


def in_memory(data: LongTailData, image_size: int, *, progress: bool = False) -> LongTailData:
    """Decode a data set's images once, for several trainings, where they fit in memory.

    A training of another size decodes the original images anew.
    """

    def decoded(split: Split) -> Split:
        loader = Loader(split, image_size=image_size, progress=progress)
        if loader.pixels is None or loader.pixels is split.images:
            return split
        return replace(split, images=loader.pixels, originals=loader.split.images)

    splits = {name: decoded(split) for name, split in data.splits.items()}
    return replace(data, **splits).from_source(data.source)


def not_shown(progress: bool) -> bool | None:
    """``disable`` of a tqdm bar: None leaves it out where nobody watches, as in a log file."""
    return None if progress else True


def _where_it_fits(size: int, device: torch.device) -> str:
    """Choose where ``size`` bytes are kept so that at most half of what is free is taken."""
    if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 2:
        return "device"
    return "memory" if size < free_memory() / 2 else "files"
