"""Use a trained network: images as people have them in, probabilities out."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from ltml.core.devices import choose_device
from ltml.core.errors import InputError
from ltml.core.labels import LabelMatrix
from ltml.core.options import Bounds, check_fields, fitted
from ltml.data.image import IMAGE_SUFFIXES, each_image, read_image
from ltml.data.loader import Loader, decode_image
from ltml.data.splits import Split
from ltml.runs.recipe import Recipe, from_fit
from ltml.training.network import Classifier, build_model, from_timm, own_size
from ltml.training.passes import evaluate

log = logging.getLogger(__name__)


class ImageModel(nn.Module):
    """Resize, normalise and classify images: what :meth:`ltml.Run.model` returns.

    Args:
        classifier: network from normalised images ``(B, 3, S, S)``.
        image_size: side ``S`` of the square input in pixels; images are squeezed to a square, as in
            training.
        class_names: ``C`` names, in the order of the logits.
    """

    def __init__(self, classifier: Classifier, image_size: int, class_names: Iterable[str]):
        super().__init__()
        self.classifier, self.image_size = classifier, image_size
        self.class_names = tuple(class_names)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(classifier.backbone, name)).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images) -> Tensor:
        """Return logits ``(B, C)`` of images.

        Args:
            images: tensor ``(B, 3, H, W)``, uint8 or float in [0, 1], of any height and width; or
                an image or images of any other kind, see :mod:`ltml.data.image`. Floats count at
                8 bits, as everywhere, but where a gradient of theirs is wanted.
        """
        images = self.read(images).to(self.mean.device)
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        images = (images - self.mean) / self.std
        return self.classifier(images.contiguous(memory_format=torch.channels_last))

    def read(self, images) -> Tensor:
        """Bring images to uint8 ``(B, 3, S, S)``; floats that need a gradient stay what they are,
        resized."""
        size = self.image_size
        if isinstance(images, Tensor):
            if images.dtype == torch.uint8 and images.shape[1:] == (3, size, size):
                return images
            if images.requires_grad and images.ndim in (3, 4) and images.shape[-3] == 3:
                images = images if images.ndim == 4 else images.unsqueeze(0)
                return v2.functional.resize(images, [size, size], antialias=True).float()
        found = [
            decode_image(image, size, f"{number} of the batch")
            for number, image in enumerate(each_image(images))
        ]
        if not found:
            raise InputError("the batch holds no image; give at least one")
        return torch.stack(found)


def load_model(run, *, device: str = "cpu") -> ImageModel:
    """Build a run's network with its trained weights; see :meth:`ltml.Run.model`."""
    names, table = run.config["data"]["class_names"], run.classes.set_index("class")
    if not from_fit(run.config):
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
    # What computes is a choice of the machine, not of the model.
    recipe = replace(recipe, backbone=backbone, weights=None, engine="torch")
    counts = table["count"].loc[names].to_numpy()
    try:
        state, backbone = run.state_dict(), None
        if recipe.backbone.startswith("timm/"):  # of whose forms the weights decide
            name = recipe.backbone.removeprefix("timm/")
            backbone = from_timm(name, None, recipe.image_size, state)
        model = build_model(recipe, counts, run.config["data"]["train_images"], backbone)
        model.load_state_dict(state)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds over damaged files
        raise InputError(
            f"{str(run.path / 'model.pt')!r} does not fit the run's recipe "
            f"({str(error).splitlines()[0]}); train again"
        ) from error
    model.head.normalize = recipe.refit
    size = recipe.test_size or recipe.image_size or 224
    return ImageModel(model, size, names).to(choose_device(device)).eval()


def predict(run, images, *, device, batch_size, progress, precision, engine) -> pd.DataFrame:
    """Return each image's probability of each class; see :meth:`ltml.Run.predict`."""
    changes = {"engine": engine} | ({} if precision is None else {"precision": precision})
    check_fields(replace(Recipe(), **changes))
    batch_size = fitted("batch_size", batch_size, Annotated[int, Bounds("[1, 1e6]")] | None)
    model = load_model(run, device=device)
    for name, value in changes.items():
        setattr(model.classifier.backbone, name, value)
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
    network = model.classifier
    if loader.maps:  # of a bank, which have passed the backbone
        network = Classifier(nn.Identity(), network.head)
    options = {"batch_size": batch_size, "name": "predict", "progress": progress}
    (logits,) = evaluate(network, loader, **options)
    scores = logits.double().sigmoid().numpy()  # in float32, those near 1 tie
    for number, error in broken.items():  # one damaged photo must not cost the other thousands
        log.warning("%s", error)
        scores[number] = np.nan
    if len(broken) == len(split):
        first = str(next(iter(broken.values())))
        raise InputError(f"none of the {len(split)} images can be decoded; the first: {first}")
    names = pd.Index([str(name) for name in split.ids], name="image")
    return pd.DataFrame(scores, index=names, columns=list(model.class_names))


def _as_split(images, class_names: tuple[str, ...]) -> Split:
    """Make a split, without labels, of whatever images people have."""
    items, ids, folders, left_out = [], [], [], Counter()
    for number, item in enumerate(each_image(images)):
        if not isinstance(item, str | Path):
            # Files and pictures are decoded when their turn comes; arrays may be views of one that
            # changes, and what is wrong with one is most likely wrong with all.
            lazy = isinstance(item, Image.Image | Mapping | bytes)
            items.append(item if lazy else read_image(item, f"{number} of those given"))
            ids.append(number)
            continue
        path = Path(item)
        if item and path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
            found = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
            left_out.update(p.suffix for p in files if p.suffix.lower() not in IMAGE_SUFFIXES)
            if not found:
                raise InputError(f"{str(item)!r} holds no image file; give another folder")
            items += found
            ids += found
            folders.append(str(item))
        elif not item or not path.exists():  # no text is no path, though Path("") is here
            raise InputError(f"{str(item)!r} does not exist; give image files or folders")
        else:
            items.append(path)
            ids.append(item)
    if not items:
        raise InputError("no image was given; give paths, a folder, or images")
    if left_out:
        kinds = ", ".join(f"{n} {end or 'without ending'}" for end, n in left_out.most_common(5))
        log.warning(
            "%s: %d files that are no images by their names were left out (%s)",
            *(", ".join(folders), left_out.total(), kinds),
        )
    labels = LabelMatrix.from_lists([[]] * len(items), class_names)
    return Split(items, labels, [str(name) for name in ids])


class _Program(nn.Module):
    """What is exported: from floats in [0, 1] at the network's own size to logits."""

    def __init__(self, model: ImageModel):
        super().__init__()
        self.classifier, self.image_size = model.classifier, model.image_size
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images: Tensor) -> Tensor:
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.classifier(images)


def export(run, path: Path) -> Path:
    """Write the model as ONNX or as an exported program; see :meth:`ltml.Run.export`."""
    model = _Program(load_model(run)).eval()
    size = model.image_size
    bits = torch.randint(256, (2, 3, size, size), generator=torch.Generator().manual_seed(0))
    example = bits.float() / 255
    with torch.no_grad():
        expected = model(example)
    batch = {0: torch.export.Dim("batch", min=1)}
    weights = sum(value.nbytes for value in model.state_dict().values())
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
        torch.onnx.export(
            # Weights in a file beside it would be lost when the one is renamed. Protocol buffers
            # hold 2 GB.
            *(model, (example,), path),
            dynamic_shapes=(batch,),
            dynamo=True,
            external_data=weights >= 2**31 - 2**20,
        )
        session = onnxruntime.InferenceSession(path)
        feed = {session.get_inputs()[0].name: example.numpy()}
        found = torch.from_numpy(session.run(None, feed)[0])
    else:
        raise InputError(f"{path.name!r} ends in neither .onnx nor .pt2; give one of them")
    if not torch.allclose(found, expected, atol=1e-4):
        off = (found - expected).abs().max().item()
        raise InputError(f"{path} scores an image differently from the model, by {off:.2g}")
    return path
