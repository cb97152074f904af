"""Recipes by name: the benchmarks as they are usually trained, and with the method."""

from dataclasses import replace

from ltml.errors import InputError
from ltml.recipe import Recipe

__all__ = ["PRESETS", "preset"]

# As published comparisons on these benchmarks train: ResNet-50 from ImageNet, 224 pixels, batches
# of 32, SGD at 0.02, a tenth of that after 5 and 7 of 8 epochs, warm-up, clipped gradients.
_USUAL = Recipe(
    backbone="resnet50",
    weights="IMAGENET1K_V1",
    image_size=224,
    augment="strong",
    batch_size=32,
    optimizer="sgd",
    lr=0.02,
    backbone_lr=1.0,
    weight_decay=1e-4,
    schedule="step",
    epochs=8,
    warmup=500,
    clip=35.0,
)
# On photos strong re-balancing loses: see "Train on photos" in README.
_METHOD = {
    "sampler": "group",
    "uniform": 0.875,
    "loss": "dgb",
    "strength": 0.3,
    "diversity": "dem",
    "alpha": 0.0,
    "pairs": True,
}

PRESETS = {
    name: replace(_USUAL, data=data, **changes)
    for data in ("voc-lt", "coco-lt")
    for name, changes in (
        (f"{data}-resnet50", {}),
        (f"{data}-resnet50-class-aware", {"sampler": "class-aware"}),
        (f"{data}-resnet50-method", _METHOD),
    )
}


def preset(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: for an unknown name.

    Example:
        >>> preset("voc-lt-resnet50").lr
        0.02
    """
    if name not in PRESETS:
        raise InputError(f"recipe {name!r} is unknown; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
