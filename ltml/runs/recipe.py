"""A recipe: everything that decides how a model is trained; and the benchmarks' usual ones."""

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, get_type_hints

from ltml.core.errors import InputError
from ltml.core.options import Bounds, Seed, check_fields, check_options, choose, fitted

Count = Annotated[int, Bounds("[1, inf)")]
Positive = Annotated[float, Bounds("(0, 1e30]")]
# What a training gives its parts itself, so that no recipe can.
GIVEN = {
    "sampler": ("batch_size", "num_batches", "seed", "rank", "world_size"),
    "loss": ("reduction",),
    "diversity": (),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a model is trained; equal recipes give equal runs on one machine.

    A part with options of its own (data, sampler, loss, head) takes them as a dictionary, whose
    defaults and checks are those of the part: see ``help(ltml.GroupSampler)``, for example.

    Raises:
        InputError: from :func:`fit`, if a value is out of range.

    Example:
        >>> Recipe(loss="dgb", loss_options={"strength": 0.3}).loss_options
        {'strength': 0.3}
    """

    data: str = "pictograms"
    """Name of the data set."""
    root: str | None = None
    """Folder of the data set; the embedded pictograms need none."""
    data_options: dict = field(default_factory=dict)
    """Options of the data set's loader, such as seed=1 for other pictograms."""
    train_split: str | None = None
    """Split to train on; default: the data set's own."""
    val_split: str | None = None
    """Split to validate on, every validate_every epochs and at the end; default: none."""
    test_split: str | None = None
    """Split to test on; default: the data set's own."""
    holdout: Annotated[float, Bounds("[0, 0.9]")] = 0.0
    """Fraction of the training images to hold out for validation; classes stay on both sides."""
    groups: list[Annotated[int, Bounds("[0, inf)")]] | Literal["terciles"] | None = None
    """Smallest training count of a head class, and smallest above the tail, or terciles of the
    counts, before a holdout is cut; default: 100 20, or what the data set's labels say."""
    holdout_seed: Annotated[int, Bounds("[0, inf)")] = 0
    """Seed of which images are held out, apart from seed: all models compared share them."""
    allow_leaks: bool = False
    """Train and test although images are in two splits, which is an error otherwise."""
    unknown: Literal["ignore", "negative"] = "ignore"
    """Training labels that are unknown: ignore (no loss, no gradient) or negative (taken as
    absent); scores are over known labels either way."""
    sampler: str = "uniform"
    """How images are sampled: uniform, class-aware, group or group-late."""
    sampler_options: dict = field(default_factory=dict)
    """Options of the sampler: ridge, share, uniform (group), last (group-late)."""
    loss: str = "bce"
    """bce, weighted-bce, class-balanced, focal, asl, db, eql-v2, dgb, dgb-focal or dgb-asl."""
    loss_options: dict = field(default_factory=dict)
    """Options of the loss, such as strength=0.3 (dgb) or mu=0.2 lam=2 (db)."""
    diversity: str = "off"
    """Head: off (average pooling), attention (class attention), dem (with fusion)."""
    head_options: dict = field(default_factory=dict)
    """Options of the head: kappa, tau (attention, dem), alpha (dem)."""
    backbone: str = "small"
    """small, a torchvision classifier such as resnet50, or timm/NAME."""
    weights: str | None = None
    """A local file with a state_dict (.pth, .safetensors), or a name of pretrained weights."""
    freeze: Annotated[int, Bounds("[-1, inf)")] = 0
    """First layers of the backbone that are kept as loaded, batch norm's statistics included; -1:
    all of them. Every image then passes the backbone once, and the head is trained on the maps."""
    freeze_norm: bool | None = None
    """Keep batch norm's statistics as loaded; default: with weights, since small batches blur
    them."""
    image_size: Annotated[int, Bounds("[1, 10000]")] | None = None
    """Side of the square input in pixels; default: what suits the images and the backbone."""
    test_size: Annotated[int, Bounds("[1, 10000]")] | None = None
    """Side of the square input for tests, refit and predictions; default: image_size. Random crops
    enlarge what they show, so that photos at 1.15 to 1.3 times the size look alike to the network:
    FixRes (Touvron et al., Fixing the train-test resolution discrepancy, NeurIPS 2019,
    https://arxiv.org/abs/1906.06423)."""
    augment: str | None = None
    """Random views: none, shift, light (shift and mirror) or strong (crop, mirror and colour);
    default: light, but shift for pictograms, whose mirror images are never tested."""
    epochs: Count | None = None
    """Passes over as many images as the training split has; default 7, unless steps are given."""
    steps: Annotated[int, Bounds("[0, inf)")] | None = None
    """Training steps, instead of epochs; 0 with refit: the head is only fitted."""
    batch_size: Annotated[int, Bounds("[2, 1e6]")] = 64
    """Images per step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw or sgd."""
    momentum: Annotated[float, Bounds("[0, 1)")] = 0.9
    """Momentum of sgd."""
    lr: Positive | None = None
    """Peak learning rate; default: 0.01 for the small network, 0.005 for others."""
    backbone_lr: Positive | None = None
    """Learning rate of the backbone, as a multiple of lr; default: 0.2 with weights, which it
    spares, else 1."""
    weight_decay: Annotated[float, Bounds("[0, 1e6]")] = 1e-2
    """Weight decay, not applied to biases and normalisation."""
    schedule: Literal["cosine", "step"] = "cosine"
    """cosine to 0, or step: a tenth after 5/8 and again after 7/8 of the training."""
    warmup: Annotated[int, Bounds("[0, inf)")] | None = None
    """Steps over which the learning rate rises; default: 50, but at most half of all."""
    clip: Positive = 35.0
    """Largest norm of the whole gradient."""
    evaluate_every: Count | None = None
    """Also test after every so many epochs; default: once, at the end."""
    validate_every: Count = 1
    """Validate after every so many epochs, and after the last."""
    refit: bool = False
    """After the training, fit the classifier anew in closed form, by the covariance that all
    classes share; see ltml.core.discriminant."""
    shrinkage: Positive | None = None
    """Of that covariance; default: chosen on the training images, by leave-one-out error."""
    interpolation: Annotated[float, Bounds("[0, 1]")] = 0.0
    """Before the refit, interpolate the backbone by this fraction towards its pretrained weights:
    WiSE-FT (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022,
    https://arxiv.org/abs/2109.01903)."""
    record_scores: bool = False
    """Record each image's logits after every epoch, see Run.score_history: of the training images
    in a pass more, and of those that are validated and tested then."""
    interference: bool = False
    """Record which classes pull the shared features against one another: up to 100 classes, say."""
    keep: Literal["last", "best"] = "last"
    """Which epoch's model to keep: last, or best (by the mAP of the validation split)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the network: float32, bfloat16 (by autocast), or auto: bfloat16 on a GPU that
    has it, else float32. Parameters, loss and head's solution are float32 or more in any case."""
    engine: Literal["torch", "openvino"] = "torch"
    """What computes passes of all images outside the steps: torch, or openvino (CPUs)."""
    micro_batch: Count | None = None
    """Images that pass the backbone at a time in a step, whose gradients stay those of the whole
    batch; default: all, but on CPUs, where batch norm rests, as many as hold 0.6 GiB for backward.
    """
    compile: bool = False
    """Have torch.compile build the network first: slow to start, faster from then on."""
    seed: Seed = 0
    """Seed of the weights, the sampling and the augmentation."""
    device: str = "auto"
    """auto (cuda, else mps, else cpu), or a torch device."""

    def __post_init__(self):
        if self.device is not None and not isinstance(self.device, str):
            object.__setattr__(self, "device", str(self.device))  # of a torch.device
        with suppress(InputError):  # a recipe may hold anything, until it is checked
            check_fields(self)

    @classmethod
    def baseline(cls, **changes) -> "Recipe":
        """Uniform sampling, binary cross-entropy, average pooling."""
        return cls(**changes)

    @classmethod
    def method(cls, **changes) -> "Recipe":
        """Group sampling, dynamic gradient balancing and diversity enhancement.

        Example:
            >>> Recipe.method(steps=500, seed=1).sampler
            'group'
        """
        parts = {"sampler": "group", "loss": "dgb", "diversity": "dem"}
        return cls(**{**parts, "sampler_options": {"uniform": 0.3}} | changes)

    @classmethod
    def probe(cls, **changes) -> "Recipe":
        """A frozen backbone, mild class attention, a classifier in closed form: no training."""
        parts = {"backbone": "resnet50", "weights": "DEFAULT", "freeze": -1, "steps": 0}
        parts |= {"refit": True, "diversity": "attention"}
        if changes.get("diversity", "attention") != "off":
            parts["head_options"] = {"kappa": 0.3}  # the best on photos' validation split
        return cls(**parts | changes)

    def check(self) -> None:
        """Raise an :class:`InputError` that names the first value that cannot be used."""
        from ltml.core.heads import HEADS  # torch takes seconds to import
        from ltml.core.losses import LOSSES
        from ltml.core.sampler import SAMPLERS

        check_fields(self)
        for what, table, name, options in (
            ("sampler", SAMPLERS, self.sampler, self.sampler_options),
            ("loss", LOSSES, self.loss, self.loss_options),
            ("diversity", HEADS, self.diversity, self.head_options),
        ):
            part = choose(what, name, table)
            found = check_options(part, f"{what} {name!r}", options, *GIVEN[what])
            options.update(found)  # numbers that were text
        bounds = self.groups
        if isinstance(bounds, list) and (len(bounds) != 2 or bounds[0] < bounds[1]):
            raise InputError(f"groups is {bounds}; give two falling counts, or terciles")
        if self.steps is not None and self.epochs is not None:
            raise InputError(f"epochs={self.epochs} and steps={self.steps}: give one of them")
        if self.steps == 0 and not self.refit:
            raise InputError("steps is 0, and nothing would be trained; give 1 or more, or refit")
        if self.interpolation and not (self.refit and self.weights):
            raise InputError(
                f"interpolation={self.interpolation} goes back to pretrained weights, for the "
                "refit; give weights, and refit"
            )
        if self.freeze == -1 and self.test_size is not None:
            raise InputError(
                f"test_size={self.test_size} with freeze=-1: images pass the backbone once, at one "
                f"size; give image_size={self.test_size} alone"
            )
        if self.val_split is not None and self.holdout:
            raise InputError(
                f"val_split={self.val_split!r} and holdout={self.holdout}: give one of them"
            )

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """Build from the ``recipe`` entry of a run's ``config.json``; unknown entries are dropped.

        Records of schema 1, whose parts' options were fields of the recipe, are read too.

        Raises:
            InputError: if a value is not of the field's type.
        """
        values = _from_schema_1(values) if "max_weight" in values else values
        found = {}
        for name, kind in get_type_hints(cls).items():
            if name not in values:
                continue
            if values[name] is None and kind is float:
                found[name] = math.inf  # JSON has no infinity; write_json makes it null
            else:
                found[name] = fitted(name, values[name], kind, where="recipe: ")
        if found.get("holdout") and "holdout_seed" not in values:  # of before 0.6
            found["holdout_seed"] = found.get("seed", 0)
        if "head_options" in found:  # 0.3.0 could fuse pairs of images, in training alone
            options = found["head_options"].items()
            found["head_options"] = {name: value for name, value in options if name != "pairs"}
        return cls(**found)


def from_fit(config: dict) -> bool:
    """Whether a run's configuration is that of ``fit``, not of somebody's own loop.

    Records of before 0.5.0 do not say; a recipe of theirs has these fields.
    """
    guess = not {"data", "sampler", "loss", "diversity"} <= config["recipe"].keys()
    return not config.get("recorder", guess)


def _from_schema_1(values: dict) -> dict:
    """Move the options of parts from the recipe's own fields into dictionaries."""

    def taken(*names: str) -> dict:
        return {name: values[name] for name in names if name in values}

    out = {key: value for key, value in values.items() if key != "momentum"}
    if values.get("sampler") == "group":
        out["sampler_options"] = taken("ridge", "share", "uniform")
    if str(values.get("loss")).startswith("dgb"):
        out["loss_options"] = taken("strength", "momentum", "max_weight")
    heads = {"attention": ("kappa", "tau"), "dem": ("alpha", "kappa", "tau")}
    out["head_options"] = taken(*heads.get(values.get("diversity"), ()))
    if values.get("data_seed"):
        out["data_options"] = {"seed": values["data_seed"]}
    return out


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
)
# What the photos of the VOC-LT proxy chose on their validation split; see README.
_METHOD = {
    "sampler": "group-late",
    "loss": "dgb",
    "loss_options": {"strength": 0.5},
    "refit": True,
    "interpolation": 0.5,
}
# The distribution-balanced loss as its paper sets it on each benchmark.
_DB = {"voc-lt": {"mu": 0.3, "lam": 5.0}, "coco-lt": {"mu": 0.2, "lam": 2.0}}

# Photos with pretrained weights, as README's "Real photos" has them.
_PHOTOS = Recipe(
    data="folder",
    backbone="mobilenet_v2",
    weights="DEFAULT",
    image_size=224,
    augment="strong",
    steps=240,
    batch_size=32,
    lr=2e-3,
    backbone_lr=0.1,
    validate_every=1000,
)

PRESETS = {
    "photos": replace(_PHOTOS, **_METHOD, test_size=288),
    "photos-frozen": replace(_PHOTOS, freeze=-1, augment="light", steps=300, batch_size=64),
} | {
    name: replace(_USUAL, data=data, **changes)
    for data in ("voc-lt", "coco-lt")
    for name, changes in (
        (f"{data}-resnet50", {}),
        (f"{data}-resnet50-class-aware", {"sampler": "class-aware"}),
        (
            f"{data}-resnet50-db",
            {"sampler": "class-aware", "loss": "db", "loss_options": _DB[data]},
        ),
        (f"{data}-resnet50-method", _METHOD),
    )
}


def preset(name: str) -> Recipe:
    """Return one of the :data:`PRESETS` by name.

    Raises:
        InputError: for an unknown name.

    Example:
        >>> preset("voc-lt-resnet50").lr
        0.02
    """
    return choose("recipe", name, PRESETS)
