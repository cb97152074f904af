"""Random views of a batch, each image with its own, computed where the batch is."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2


class _Random:
    generator: torch.Generator | None = None  # None: torch's own

    def _rand(self, images: Tensor, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=images.device)


class RandomShift(_Random):
    """Shift each image by whole pixels, its edge repeated, and mirror it: sharp as it was.

    Args:
        shift: largest shift, as a share of the image's side.
        flip: probability of mirroring left to right.
    """

    def __init__(self, *, shift: float = 0.08, flip: float = 0.5):
        self.shift, self.flip = shift, flip

    def __call__(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` of any type -> same shape and type."""
        (B, channels, H, W), device = images.shape, images.device
        u = self._rand(images, 3, B, 1)
        most = round(self.shift * max(H, W))
        dy, dx = (u[:2] * (2 * most + 1)).long() - most
        rows = (torch.arange(H, device=device) + dy).clamp(0, H - 1)
        columns = (torch.arange(W, device=device) + dx).clamp(0, W - 1)
        columns = torch.where(u[2] < self.flip, columns.flip(1), columns)
        pixel = rows.unsqueeze(2) * W + columns.unsqueeze(1)  # (B, H, W)
        pixel = pixel.view(B, 1, H * W).expand(-1, channels, -1)
        return images.flatten(2).gather(2, pixel).view_as(images)


class RandomCrop(_Random):
    """Cut a square out of each image, enlarge it to the image's size, and mirror it.

    Args:
        zoom: smallest side of the crop, as a share of the image's side, in (0, 1].
        flip: probability of mirroring left to right.
    """

    def __init__(self, *, zoom: float = 0.63, flip: float = 0.5):
        self.zoom, self.flip = zoom, flip

    def __call__(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float -> same shape."""
        u = self._rand(images, 4, len(images))
        side = self.zoom + (1 - self.zoom) * u[0]
        theta = torch.zeros(len(images), 2, 3, device=images.device)
        theta[:, 0, 0] = torch.where(u[1] < self.flip, -side, side)
        theta[:, 1, 1] = side
        theta[:, :, 2] = ((2 * u[2:] - 1) * (1 - side)).T
        return _crop(images, theta)


def _crop(images: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


class RandomColor(_Random):
    """Change brightness, contrast and saturation of each image.

    Args:
        strength: factors are sampled from ``[1 - strength, 1 + strength]``.
    """

    def __init__(self, strength: float = 0.2):
        self.strength = strength

    def __call__(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` float in [0, 1] -> same."""
        u = self._rand(images, 3, len(images), 1, 1, 1)
        return _colour(images, 1 + self.strength * (2 * u - 1))


def _colour(images: Tensor, factors: Tensor) -> Tensor:
    brightness, contrast, saturation = factors
    images = images * brightness
    grey = v2.functional.rgb_to_grayscale(images)
    # contrast about the image's mean, then saturation about each pixel's grey, as torchvision's
    mean = grey.mean((1, 2, 3), keepdim=True)
    images = images * contrast + mean * (1 - contrast)
    grey = grey * contrast + mean * (1 - contrast)
    return (images * saturation + grey * (1 - saturation)).clamp(0, 1)


# name -> the transforms of a float batch in [0, 1]
AUGMENTATIONS = {
    "none": lambda: [],
    "shift": lambda: [RandomShift(flip=0)],
    "light": lambda: [RandomShift()],
    "strong": lambda: [RandomCrop(), RandomColor(0.3)],
}
