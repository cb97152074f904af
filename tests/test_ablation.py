import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ltml import InputError, Recipe, Run, fit, plots
from ltml.training import ablation
from ltml.training.setup import completed

TINY = Recipe(data="pictograms", image_size=24, steps=2, batch_size=8, augment="none")
ONLY = ["uniform/bce/off", "class-aware/dgb/dem"]


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A small tree on disk, so that each job can read it."""
    from ltml.data.pictograms import export_coco

    root = tmp_path_factory.mktemp("tree") / "t"
    export_coco(root, scale=0.05, image_size=24, test_images=40)
    return Recipe(
        data="coco",
        root=str(root),
        train_split="train",
        test_split="test",
        steps=2,
        batch_size=8,
    )


def test_the_grid_covers_everything_seed_by_seed():
    grid = ablation.cells(seeds=2)
    assert len(set(grid)) == len(grid) == 2 * 4 * 10 * 3
    assert [cell.seed for cell in grid] == sorted(cell.seed for cell in grid)
    assert len(ablation.cells(seeds=1, only=ablation.FAST)) == len(ablation.FAST)
    assert len(ablation.cells(seeds=1, only=["uniform/bce/off", "uniform/bce/*"])) == 3


@pytest.mark.slow
def test_a_finished_cell_is_never_trained_again(small_data, tmp_path, monkeypatch):
    grid = ablation.cells(seeds=2, only=ONLY)
    trained = []
    real = ablation.fit

    def counting(recipe, **options):
        trained.append(recipe)
        return real(recipe, **options)

    monkeypatch.setattr(ablation, "fit", counting)
    ablation.ablate(small_data, grid[:2], tmp_path, progress=False)
    (tmp_path / grid[1].folder / "summary.json").unlink()  # as if it had been broken off
    table = ablation.ablate(small_data, grid, tmp_path, progress=False)
    assert [recipe.seed for recipe in trained] == [0, 0, 0, 1, 1]
    assert list(table) == ablation.COLUMNS
    assert len(table) == 4
    for cell, row in zip(grid, table.itertuples(), strict=True):
        run = Run.load(tmp_path / cell.folder)
        assert row.mAP == pytest.approx(100 * run.summary["mAP"], abs=0.006)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "ablation.csv"), table)
    with pytest.raises(InputError, match=r"was trained with lr=0.01, not 0.1"):
        ablation.ablate(Recipe(**{**vars(small_data), "lr": 0.1}), grid, tmp_path)


@pytest.mark.slow
def test_two_jobs_train_what_one_job_trains(small_data, tmp_path):
    grid = ablation.cells(seeds=1, only=ONLY)
    one = ablation.ablate(small_data, grid, tmp_path / "one", progress=False)
    two = ablation.ablate(small_data, grid, tmp_path / "two", jobs=2)
    columns = [name for name in ablation.COLUMNS if name != "seconds"]
    pd.testing.assert_frame_equal(one[columns], two[columns], rtol=1e-3, atol=0.05)


def test_means_and_deviations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    rows = [
        {
            **{"data": "d", "sampler": s, "loss": "bce", "diversity": "off", "seed": seed},
            **dict.fromkeys(ablation.COLUMNS[4:10], "as ever"),
            **{name: rng.uniform(0, 100) for name in ablation.COLUMNS[11:]},
        }
        for s in ("uniform", "group")
        for seed in range(3)
    ]
    table = pd.DataFrame(rows)
    summary = ablation.summarise(table).set_index("sampler")
    for sampler in ("uniform", "group"):
        values = table[table.sampler == sampler]
        assert summary.seeds[sampler] == 3
        assert summary["tail"][sampler] == pytest.approx(np.mean(values["tail"]))
        assert summary.tail_std[sampler] == pytest.approx(np.std(values["tail"], ddof=1))
    assert summary.mAP.is_monotonic_decreasing
    fig, ax = plots.ablation(table)
    assert [t.get_text() for t in ax.get_yticklabels()][-1].startswith(summary.index[0])
    plt.close(fig)


def test_readme_shows_the_committed_table():
    root = Path(__file__).resolve().parents[1]
    table = pd.read_csv(root / "figures" / "ablation.csv")
    assert list(table) == ablation.COLUMNS
    assert table.groupby(ablation.COLUMNS[:4]).seed.nunique().min() >= 3
    assert ablation.markdown(table) in (root / "book" / "guide" / "results.md").read_text(
        encoding="utf-8"
    )


def test_each_part_takes_the_options_it_has():
    base = Recipe.method(loss_options={"strength": 0.3}, head_options={"kappa": 0.5, "alpha": 0.1})
    wanted = {
        ("uniform", "bce", "off"): ({}, {}, {}),
        ("group", "dgb-focal", "attention"): ({"uniform": 0.3}, {"strength": 0.3}, {"kappa": 0.5}),
        ("class-aware", "db", "dem"): ({}, {}, {"kappa": 0.5, "alpha": 0.1}),
    }
    for names, options in wanted.items():
        recipe = ablation.recipe_of(base, ablation.Cell(*names, 1))
        assert (recipe.sampler_options, recipe.loss_options, recipe.head_options) == options
        assert recipe.seed == 1
    with pytest.raises(InputError, match="'strenght', which none of the grid takes"):
        ablation.recipe_of(
            Recipe(loss_options={"strenght": 1}), ablation.Cell("uniform", "bce", "off", 0)
        )


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"loss_options": {"strength": 0.3}}, {}),
        ({}, {"loss_options": {"strength": 0.3}}),
        ({"head_options": {"tau": 2}}, {"head_options": {"kappa": 0.5}}),
        ({"data_options": {"seed": 1}}, {}),
        ({}, {"data_options": {"seed": 1}}),
    ],
)
def test_rows_of_other_options_are_refused_either_way(before, now, tiny, tmp_path, monkeypatch):
    def recipe(options):
        return Recipe(**{"sampler": "group", "loss": "dgb", "diversity": "dem"} | options)

    (tmp_path / "summary.json").touch()
    run = type("Run", (), {"recipe": {}, "config": {"data": {}}})
    monkeypatch.setattr(ablation.Run, "load", lambda folder: run)
    run.recipe = vars(completed(recipe(before), tiny.train))
    with pytest.raises(InputError, match="was trained with"):
        ablation._finished(tmp_path, recipe(now), tiny)
    said = {"loss_options": {"strength": 0.5}, "head_options": {"tau": 8}, "lr": 0.01, "epochs": 7}
    said |= {"image_size": 24, "augment": "shift", "device": "cpu"}
    run.recipe = vars(completed(recipe({}), tiny.train))
    assert ablation._finished(tmp_path, recipe(said), tiny)  # the defaults
    run.recipe = vars(completed(recipe(said), tiny.train))
    assert ablation._finished(tmp_path, recipe({}), tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"train": lambda split: split.subset(range(1, len(split)))},
        {"train": lambda split: replace(split, ids=[f"other/{i}" for i in split.ids])},
        {"test": lambda split: split.subset(range(len(split) - 1))},
        {"test": lambda split: replace(split, ids=[f"other/{i}" for i in split.ids])},
        {"test": lambda split: replace(split, labels=_swapped(split.labels))},
        {"train": lambda split: replace(split, labels=_swapped(split.labels))},
    ],
)
def test_rows_of_other_data_are_refused(change, tiny, tmp_path, monkeypatch):
    recipe = replace(TINY, steps=1)
    out = tmp_path / "uniform+bce+off+seed0"
    made = fit(recipe, data=tiny, out=out, progress=False)
    other = replace(tiny, **{name: do(getattr(tiny, name)) for name, do in change.items()})
    assert ablation._finished(out, recipe, tiny)
    with pytest.raises(InputError, match="was trained on other data than these"):
        ablation._finished(out, recipe, other)
    config = json.loads((out / "config.json").read_text())
    del config["data"]["digest"]  # as of an older version
    (out / "config.json").write_text(json.dumps(config))
    assert ablation._finished(made.path, recipe, tiny)


def _swapped(labels):
    """Two images' labels exchanged, which leaves every count."""
    rows = np.arange(len(labels))
    first = next(i for i in rows if set(labels[i]) != set(labels[0]))
    rows[[0, first]] = rows[[first, 0]]
    return labels.subset(rows)


def test_a_search_of_rates_is_never_left_beside_a_table_without(tmp_path):
    (tmp_path / "rates.csv").write_text("lr\n0.1\n")
    with pytest.raises(InputError, match="is the search of another ablation"):
        ablation.ablate(TINY, ablation.cells(seeds=1, only=["uniform/bce/off"]), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["rates.csv"]


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"only 'odd/\*/\*' matches no cell.*class-aware"):
        ablation.cells(only=["odd/*/*"])
    with pytest.raises(InputError, match="seeds=0"):
        ablation.cells(seeds=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cluster_trains_the_same_cells(small_data, tmp_path):
    """Two workers of a local Dask cluster, each a process of its own, as on other machines."""
    distributed = pytest.importorskip("distributed")
    grid = ablation.cells(seeds=2, only=["uniform/bce/off", "class-aware/bce/off"])
    here = ablation.ablate(small_data, grid, tmp_path / "here", progress=False)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, worker_dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        there = ablation.ablate(small_data, grid, tmp_path / "there", cluster=address)
    columns = [name for name in here if name != "seconds"]
    pd.testing.assert_frame_equal(there[columns], here[columns], rtol=1e-4)


def test_a_cluster_that_does_not_answer_is_said(small_data, tmp_path):
    pytest.importorskip("distributed")
    grid = ablation.cells(seeds=1, only=["uniform/bce/off"])
    with pytest.raises(InputError, match="does not answer"):
        ablation.ablate(small_data, grid, tmp_path, cluster="nonsense://nowhere", progress=False)


def test_every_row_has_the_rate_at_which_its_trained_head_is_best(tmp_path):
    base = Recipe(data_options={"scale": 0.1, "test_images": 60}, image_size=24, steps=8, freeze=-1)
    base = Recipe(**{**vars(base), "holdout": 0.3, "batch_size": 16})
    grid, rates = (
        ablation.cells(seeds=2, only=["uniform/bce/off", "class-aware/asl/off"]),
        (1e-4, 3e-2),
    )
    table = ablation.ablate(base, grid, tmp_path, rates=rates, progress=False)
    searched = pd.read_csv(tmp_path / "rates.csv")
    assert len(searched) == 4
    for sampler, rows in table.groupby("sampler"):
        tried = searched[searched.sampler == sampler]
        assert rows.lr.unique().tolist() == [tried.lr[tried.val_mAP.idxmax()]]
        assert sorted(rows.seed) == [0, 1]
    assert (table.backbone == "frozen").all()
    with pytest.raises(InputError, match="give val_split or holdout"):
        ablation.ablate(Recipe(), grid, tmp_path / "none", rates=rates)


def test_a_second_stage_gives_a_row_for_each_classifier():
    run = Run.load(Path(__file__).parent / "records" / "schema3")
    table = ablation.tabulate([run])
    assert table.classifier.tolist() == ["own", "refit"]
    assert table.mAP[1] == pytest.approx(100 * run.summary["mAP"], abs=0.006)
    stages = run.stages[run.stages.classifier == "own"]
    assert table["tail"][0] == pytest.approx(
        100 * stages[stages.group == "tail"].ap.mean(), abs=0.006
    )


def test_a_grid_takes_data_that_is_loaded_or_a_bank_of_it(tmp_path, monkeypatch):
    import ltml

    data = ltml.load("pictograms", scale=0.05, image_size=24, test_images=40)
    base = replace(TINY, freeze=-1, data_options={"scale": 0.05, "test_images": 40})
    grid = ablation.cells(seeds=1, only=["uniform/bce/off"])
    loaded = ablation.ablate(base, grid, tmp_path / "loaded", progress=False)

    def refuse(recipe):
        raise AssertionError("loaded again")

    monkeypatch.setattr(ablation, "load_data", refuse)
    for name, given in (("data", data), ("bank", ltml.bank(base, data, progress=False))):
        table = ablation.ablate(base, grid, tmp_path / name, data=given, progress=False)
        assert table.mAP.tolist() == pytest.approx(loaded.mAP.tolist(), abs=0.2)
    monkeypatch.setattr(ablation, "fit", refuse)  # finished cells are known by either
    ablation.ablate(base, grid, tmp_path / "bank", data=data, progress=False)
