"""Use a trained network: images as people have them in, probabilities out."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ltml.core.devices import choose_device
from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.data.loader import Loader, not_shown
from ltml.data.splits import Split
from ltml.runs.recipe import Recipe, from_fit
from ltml.training.network import Classifier, build_model, own_size

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class ImageModel(nn.Module):
    """Resize, normalise and classify images: what :meth:`ltml.Run.model` returns.

    Args:
        classifier: takes normalised images ``(B, 3, S, S)``.
        image_size: ``S``, in pixels; images are squeezed to a square, as in training.
        class_names: ``C`` names, in the order of the logits.
    """

    def __init__(self, classifier: Classifier, image_size: int, class_names: Iterable[str]):
        super().__init__()
        self.classifier, self.image_size = classifier, image_size
        self.class_names = tuple(class_names)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(classifier.backbone, name)).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, C)`` of images ``(B, 3, H, W)`` or ``(3, H, W)``.

        Args:
            images: uint8, or float in [0, 1]; of any height and width.
        """
        if images.ndim not in (3, 4) or images.shape[-3] != 3:
            raise InputError(
                f"images have shape {tuple(images.shape)}; give (B, 3, H, W) or (3, H, W), RGB"
            )
        images = images if images.ndim == 4 else images.unsqueeze(0)
        size = [self.image_size, self.image_size]
        if list(images.shape[-2:]) != size:
            images = v2.functional.resize(images, size, antialias=True)
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        images = (images - self.mean) / self.std
        return self.classifier(images.contiguous(memory_format=torch.channels_last))


def load_model(run, *, device: str = "cpu") -> ImageModel:
    """Build a run's network with its trained weights; see :meth:`ltml.Run.model`."""
    names, table = run.config["data"]["class_names"], run.classes.set_index("class")
    if not from_fit(run.recipe):
        raise InputError(
            f"run {run.name!r} was recorded from a loop of your own, so ltml does not know its "
            "network; use your own"
        )
    if run.config["schema"] < 3 and run.recipe["diversity"] != "off":
        raise InputError(
            f"run {run.name!r} is of ltml before 0.3, whose class attention was another (its "
            "tau was not relative to the features' length); train it again to use its weights"
        )
    # The pretrained weights, which may be gone by now, would be overwritten anyway.
    recipe = Recipe.from_dict(run.recipe)
    tagged = f"{recipe.backbone.partition('.')[0]}.{recipe.weights}"  # timm's tags differ in mean
    backbone = tagged if recipe.weights and own_size(tagged) else recipe.backbone
    recipe = replace(recipe, backbone=backbone, weights=None)
    counts = table["count"].loc[names].to_numpy()
    model = build_model(recipe, counts, run.config["data"]["train_images"])
    try:
        model.load_state_dict(run.state_dict())
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds over damaged files
        raise InputError(
            f"{str(run.path / 'model.pt')!r} does not fit the run's recipe "
            f"({str(error).splitlines()[0]}); train again"
        ) from error
    model.head.normalize = recipe.refit
    size = recipe.image_size or 224
    return ImageModel(model, size, names).to(choose_device(device)).eval()


def predict(
    run, images, *, device: str = "auto", batch_size: int = 64, progress: bool = True
) -> pd.DataFrame:
    """Return each image's probability of each class; see :meth:`ltml.Run.predict`."""
    model = load_model(run, device=device)
    split = images if isinstance(images, Split) else _as_split(images, model.class_names)
    where, broken = next(model.parameters()).device, {}
    loader = Loader(
        split,
        image_size=model.image_size,
        device=where,
        keep="files",
        mean=model.classifier.backbone.mean,
        std=model.classifier.backbone.std,
        broken=broken,
    )
    index = torch.arange(len(split)).split(batch_size)
    bar = tqdm(loader.batches(index), "predict", len(index), disable=not_shown(progress))
    network = model.classifier.head if loader.maps else model.classifier  # maps of a bank
    with torch.no_grad():
        parts = [network(batch).float().cpu() for batch, _ in bar]
    scores = torch.cat(parts).double().sigmoid().numpy()  # in float32, those near 1 tie
    for number, error in broken.items():  # one damaged photo must not cost the other thousands
        log.warning("%s", error)
        scores[number] = np.nan
    if len(broken) == len(split):
        raise InputError(f"none of the {len(split)} images can be decoded; give other files")
    names = pd.Index([str(name) for name in split.ids], name="image")
    return pd.DataFrame(scores, index=names, columns=list(model.class_names))


def _as_split(images, class_names: tuple[str, ...]) -> Split:
    """Make a split, without labels, of whatever images people have."""
    if isinstance(images, str | Path | Image.Image | np.ndarray):
        images = [images]
    if isinstance(images, Tensor):
        images = images if images.ndim == 4 else images.unsqueeze(0)
        items, ids = _in_bytes(images), range(len(images))
    else:
        items, ids = [], []
        for number, item in enumerate(images):
            if isinstance(item, str | Path) and Path(item).is_dir():
                found = sorted(
                    p for p in Path(item).rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES
                )
                if not found:
                    raise InputError(f"{str(item)!r} holds no image file; give another folder")
                items += found
                ids += found
            else:
                path = isinstance(item, str | Path)
                if path and not Path(item).exists():
                    raise InputError(f"{str(item)!r} does not exist; give image files or folders")
                items.append(Path(item) if path else _as_picture(item))
                ids.append(item if path else number)
    if not len(items):
        raise InputError("no image was given; give paths, a folder, or images")
    labels = LabelMatrix.from_lists([[]] * len(items), class_names)
    return Split(items, labels, [str(name) for name in ids])


def _as_picture(image) -> Image.Image:
    """Make a picture of an array ``(H, W, 3)``, a tensor ``(3, H, W)`` or a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, Tensor):
        return v2.functional.to_pil_image(_in_bytes(image))
    return Image.fromarray(_in_bytes(torch.tensor(np.asarray(image))).numpy())


def _in_bytes(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        return images
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):  # NaN fails as well
        raise InputError(
            f"float images span {low:.3g} to {high:.3g}; give values in [0, 1], not normalised"
        )
    return (255 * images).round().byte()


def export(run, path: Path) -> Path:
    """Write the model as ONNX or as an exported program; see :meth:`ltml.Run.export`."""
    model = load_model(run)
    size = model.image_size
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(example)
    batch = {0: torch.export.Dim("batch", min=1)}
    if path.suffix == ".pt2":
        program = torch.export.export(model, (example,), dynamic_shapes=(batch,))
        torch.export.save(program, path)
        found = torch.export.load(path).module()(example)
    elif path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise InputError(
                f"{error.name} is missing; install it with: pip install 'ltml[export]'"
            ) from error
        torch.onnx.export(model, (example,), path, dynamic_shapes=(batch,), dynamo=True)
        session = onnxruntime.InferenceSession(path)
        feed = {session.get_inputs()[0].name: example.numpy()}
        found = torch.from_numpy(session.run(None, feed)[0])
    else:
        raise InputError(f"{path.name!r} ends in neither .onnx nor .pt2; give one of them")
    if not torch.allclose(found, expected, atol=1e-4):
        off = (found - expected).abs().max().item()
        raise InputError(f"{path} scores an image differently from the model, by {off:.2g}")
    return path
