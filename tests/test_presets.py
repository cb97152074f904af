import pytest

from ltml import InputError, Recipe
from ltml.build import check_recipe, lr_factor
from ltml.cli import main
from ltml.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_named_recipe_can_be_used(name):
    recipe = PRESETS[name]
    check_recipe(recipe)
    assert name.startswith(recipe.data)
    assert (recipe.backbone, recipe.image_size, recipe.batch_size) == ("resnet50", 224, 32)
    # A tenth after 5 and after 7 of 8 epochs.
    factors = [lr_factor(recipe, step, 8000) for step in (4999, 5000, 6999, 7000)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.fixture
def trained(monkeypatch):
    seen = []

    def fit(recipe, **options):
        seen.append(recipe)
        raise InputError("far enough")

    monkeypatch.setattr("ltml.build.load_data", lambda recipe: None)
    monkeypatch.setattr("ltml.training.fit", fit)
    return seen


@pytest.mark.parametrize("form", [["--recipe", "coco-lt-resnet50"], ["--recipe=coco-lt-resnet50"]])
def test_options_change_a_named_recipe(trained, form):
    assert main(["train", *form, "--lr", "0.5", "--sampler", "class-aware"]) == 2
    (recipe,) = trained
    assert (recipe.lr, recipe.sampler) == (0.5, "class-aware")
    assert (recipe.data, recipe.optimizer, recipe.warmup) == ("coco-lt", "sgd", 500)


def test_without_a_name_nothing_changes(trained):
    main(["train", "--seed", "3"])
    assert trained == [Recipe(seed=3)]


def test_an_unknown_name_is_said(capsys):
    assert main(["train", "--recipe", "voc"]) == 2
    assert "choose from voc-lt-resnet50" in capsys.readouterr().err
    assert main(["train", "--recipe"]) == 2
