import pytest

from ltml import InputError, Recipe, make_loss
from ltml.core.labels import LabelMatrix
from ltml.core.options import build, choose
from ltml.runs.recipe import PRESETS, preset


def test_the_benchmarks_recipe_is_the_usual_one():
    recipe = preset("voc-lt-resnet50")
    assert (recipe.data, recipe.backbone, recipe.image_size) == ("voc-lt", "resnet50", 224)
    assert (recipe.batch_size, recipe.optimizer, recipe.lr, recipe.clip) == (32, "sgd", 0.02, 35)
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert (recipe.epochs, recipe.warmup, recipe.schedule) == (8, 500, "step")
    for name, recipe in PRESETS.items():
        recipe.check()
        assert name.startswith(recipe.data) or recipe.data == "folder"
    with pytest.raises(InputError, match="did you mean 'voc-lt-resnet50'"):
        preset("voc-lt-resnet5")


def test_distribution_balanced_recipes_take_their_papers_options():
    labels = LabelMatrix([[1, 0], [0, 1]])
    for data, mu, lam in (("voc-lt", 0.3, 5), ("coco-lt", 0.2, 2)):
        recipe = preset(f"{data}-resnet50-db")
        loss = make_loss(recipe.loss, labels, **recipe.loss_options)
        assert (loss.mu, loss.lam) == (mu, lam)


def test_defaults_stand_in_the_part_alone():
    """A recipe that says nothing of a part leaves it as the class makes it."""
    recipe = Recipe(sampler="group", loss="dgb", diversity="dem")
    assert recipe.sampler_options == recipe.loss_options == recipe.head_options == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 1.5}, "holdout is 1.5; give a number, 0 <= holdout <= 0.9"),
        ({"momentum": -1}, "momentum is -1"),
        ({"keep": "bset", "holdout": 0.1}, "did you mean 'best'"),
        ({"val_split": "val", "holdout": 0.1}, "give one of them"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
    ],
)
def test_values_out_of_range_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        Recipe(**changes).check()


def test_wrong_types_in_a_record_are_named():
    for values in ({"lr": "fast"}, {"seed": True}, {"loss_options": []}, {"steps": 1.5}):
        with pytest.raises(InputError, match=f"recipe: {next(iter(values))} is"):
            Recipe.from_dict(values)
    assert Recipe.from_dict({"lr": 1, "a_later_field": 0}).lr == 1


def test_options_are_those_of_the_part():
    def part(given, other=1, *, strength=0.5):
        return given, other, strength

    assert build(part, "part", {"strength": 2}, given="g", unused=3) == ("g", 1, 2)
    for name in ("strenght", "other", "given"):  # only what is keyword-only is an option
        with pytest.raises(InputError, match=rf"part has no option '{name}'"):
            build(part, "part", {name: 2}, given="g")
    with pytest.raises(InputError, match="loss 'bcee' is unknown; did you mean 'bce'"):
        choose("loss", "bcee", {"bce": 1, "focal": 2})
