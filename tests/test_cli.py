import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

import ltml as package
from ltml import InputError, Run, __version__, cli
from ltml.cli import main
from ltml.data.pictograms import export_coco
from ltml.runs.recipe import PRESETS
from ltml.training import ablation, setup

QUICK = ["--steps", "2", "--batch-size", "8", "--image-size", "32", "--quiet", "--device", "cpu"]


def ltml(*args):
    """Run the command line in this process; argparse-like exits count as their code."""
    try:
        return main([str(arg) for arg in args])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The embedded data as a COCO tree on disk."""
    root = tmp_path_factory.mktemp("tree") / "coco"
    return export_coco(root, image_size=32, scale=0.1, test_images=80)


@pytest.fixture
def undrawn(monkeypatch):
    """A training's figures take longer than a training of two steps."""
    monkeypatch.setattr(cli, "draw", lambda runs, out, **options: out)


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    code = ltml("train", "--data", "coco", "--root", tree, "--train-split", "train",
                "--test-split", "test", "--out", out, *QUICK)  # fmt: skip
    assert code == 0
    return out


@pytest.mark.slow
def test_the_embedded_data_are_exported(tmp_path):
    root = tmp_path / "tree"
    assert ltml("data", "export", "--out", root, "--image-size", 16, "--scale", 0.01) == 0
    found = package.load("coco", root=root, train_split="train", test_split="test")
    drawn = package.load("pictograms", image_size=16, scale=0.01)
    for name, split in drawn.splits.items():
        assert found.splits[name].labels == split.labels


def test_an_exported_tree_trains(run, capsys):
    assert Run.load(run).recipe["data"] == "coco"
    assert sorted(p.suffix for p in (run / "figures").iterdir()) == [".png"] * 5 + [".svg"] * 5


def test_compare_prints_and_writes_a_table(run, tmp_path, capsys):
    again = tmp_path / "second"
    shutil.copytree(run, again)
    assert ltml("compare", run, again, "--csv", tmp_path / "t.csv", "--figure", tmp_path / "f") == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(tmp_path / "t.csv")
    assert table.run.tolist() == ["first", "second"]
    assert table.mAP[0] == pytest.approx(100 * Run.load(run).summary["mAP"], abs=0.01)
    assert "second" in printed
    assert (tmp_path / "f.png").exists()


def test_training_prints_every_class_with_positives(tree, undrawn, tmp_path, capsys):
    assert ltml("train", "--data", "coco", "--root", tree, "--train-split", "train",
                "--test-split", "test", "--out", tmp_path / "r", "--sampler", "class-aware",
                *QUICK) == 0  # fmt: skip
    printed = capsys.readouterr().out
    for name in Run.load(tmp_path / "r").classes["class"]:
        assert name in printed
    assert "class-aware" in printed


def test_a_probe_prints_every_class_and_what_is_next(tree, undrawn, tmp_path, capsys):
    out = tmp_path / "probe"
    assert ltml("probe", tree, "--data", "coco", "--train-split", "train", "--test-split", "test",
                "--backbone", "small", "--weights", "None", "--out", out,
                "--quiet") == 0  # fmt: skip
    printed = capsys.readouterr().out
    run = Run.load(out)
    assert run.summary["steps"] == 0
    for name in run.classes["class"]:
        assert name in printed
    assert f"predict {out}" in printed


@pytest.mark.slow
def test_demo_trains_four_runs_and_draws(tmp_path, capsys):
    out = tmp_path / "demo"
    for _ in range(2):  # a demo may be repeated
        assert ltml("demo", "--out", out, "--steps", "2") == 0
    assert len(list(out.glob("*/summary.json"))) == 4
    assert list(out.glob("figures/*.png"))
    assert len(list(out.glob("figures/*.png"))) == len(list(out.glob("figures/*.svg")))
    printed = capsys.readouterr().out
    assert "class-aware sampling" in printed
    assert "class attention and fusion (DEM)" in printed
    # The next line works as printed, and compare and report take the folder of runs.
    program, command, folder = re.search(r"Next: +(\S+) (explore) (\S+)", printed).groups()
    assert command in subprocess.run([program, "--help"], capture_output=True, text=True).stdout
    assert ltml("compare", folder) == 0
    assert "method" in capsys.readouterr().out
    assert ltml("report", folder, "--out", tmp_path / "report.html") == 0


def coco(tree, out, *more):
    return ["train", "--data", "coco", "--root", tree, "--train-split", "train",
            "--test-split", "test", "--out", out, *QUICK, *more]  # fmt: skip


def change_json(tree, change):
    file = tree / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


BROKEN = {
    "missing root": (shutil.rmtree, "root"),
    "not JSON": (
        lambda t: (t / "annotations" / "instances_train.json").write_text("{"),
        "instances_train.json",
    ),
    "missing image": (lambda t: next((t / "train").glob("*.png")).unlink(), ".png"),
    "corrupt image": (
        lambda t: (f := sorted((t / "train").glob("*.png"))[3]).write_bytes(f.read_bytes()[:50]),
        "000003.png",
    ),
    "no labels": (lambda t: change_json(t, lambda c: c.update(annotations=[])), "no label"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data_gets_one_line_and_code_2(tree, tmp_path, capsys, what):
    damage, named = BROKEN[what]
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    damage(copy)
    assert ltml(*coco(copy, tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("ltml: error: ")
    assert "\n" not in error
    assert named in error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_another_run_is_refused(tree, run, capsys):
    before = sorted(run.iterdir())
    assert ltml(*coco(tree, run)) == 2
    assert "holds another run" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["train", "--data", "nothing"], "nothing"),
        (["train", "--lr", "-1"], "lr is -1.0"),
        (["train", "--train-split", "x"], "train_split"),
        (["train", "--loss", "db", "--loss-options", "mue=0.2"], "did you mean 'mu'"),
        (["train", "--loss-options", "0.2"], "NAME=VALUE"),
        (["train", "--sampler", "odd"], "odd"),
        (["train", "--data", "voc"], "root"),
        (["train", "--no-such-option", "1"], "no-such-option"),
        (["compare"], "no run"),
        (["compare", "nowhere"], "nowhere"),
        (["data", "export", "--out", "x", "--data", "voc"], "voc"),
    ],
)
def test_bad_arguments_get_code_2(tmp_path, monkeypatch, capsys, args, named):
    monkeypatch.chdir(tmp_path)
    assert ltml(*args) == 2
    error = capsys.readouterr().err
    assert named in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def label_csv(tmp_path_factory):
    file = tmp_path_factory.mktemp("labels") / "train.csv"
    rows = ["a.jpg,0 1", "b.jpg,0", "c.jpg,0 2", "d.jpg,0 1 2", "e.jpg,1"]
    file.write_text("image,labels\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks of training and of ablation, neither of which is done."""
    found = {}

    def fit(recipe, **options):
        found.update(recipe=recipe, **options)
        raise InputError("that is enough")

    def ablate(recipe, grid, out, **options):
        found.update(recipe=recipe, grid=grid, **options)
        raise InputError("that is enough")

    monkeypatch.setattr(package, "fit", fit, raising=False)
    monkeypatch.setattr(ablation, "ablate", ablate)
    monkeypatch.setattr(setup, "load_data", lambda recipe: None)
    return found


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize(
    ("args", "fields"),
    [
        (["--loss-options", "strength=0.2"], {"loss_options": {"strength": 0.2}}),
        (
            ["--loss-options", "momentum=0.5"],
            {"loss_options": {"strength": 0.5, "momentum": 0.5}},
        ),
        (["--loss", "bce"], {"loss": "bce", "loss_options": {}}),
        (["--loss", "focal", "--loss-options", "gamma=1"], {"loss_options": {"gamma": 1}}),
        (["--epochs", "3"], {"epochs": 3, "steps": None}),
        (["--epochs=3"], {"epochs": 3, "steps": None}),
        (["--steps", "30"], {"steps": 30, "epochs": None}),
        (["--image-size", "160"], {"image_size": 160, "test_size": None}),
        (["--image-size=160", "--test-size=192"], {"image_size": 160, "test_size": 192}),
        (["--test-size", "256"], {"image_size": 224, "test_size": 256}),
        (["--data-options", "missing=skip"], {"data_options": {"missing": "skip"}}),
    ],
)
def test_what_is_given_joins_or_replaces_what_a_recipe_says(asked, capsys, command, args, fields):
    only = ["--only", "uniform/*/off"] if command == "ablate" else []
    assert ltml(command, "--recipe", "photos", "--root", "somewhere", *args, *only) == 2
    assert "that is enough" in capsys.readouterr().err
    recipe, named = asked["recipe"], PRESETS["photos"]
    for field, wanted in fields.items():
        found = getattr(recipe, field)
        if isinstance(wanted, dict):
            found = {name: number(value) for name, value in found.items()}
        assert found == wanted
    for field in ("backbone", "weights", "lr", "backbone_lr", "interpolation", "refit"):
        assert getattr(recipe, field) == getattr(named, field)


def number(value):
    """Options may stand as text until they are checked."""
    try:
        return float(value)
    except ValueError:
        return value


def test_steps_that_give_way_to_epochs_are_said(asked, capsys):
    assert ltml("train", "--recipe", "photos", "--epochs", "3") == 2
    steps = PRESETS["photos"].steps
    assert f"--epochs takes the place of the recipe's steps={steps}" in capsys.readouterr().out
    assert ltml("train", "--recipe", "photos", "--epochs", "3", "--steps", "4") == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "seeds", "cells", "steps"),
    [
        ([], 1, len(ablation.FAST), 200),
        (["--seeds", "3"], 3, len(ablation.FAST), 200),
        (["--seeds", "1"], 1, len(ablation.FAST), 200),
        (["--only", "*"], 1, 4 * 10 * 3, 200),
        (["--only", "uniform/bce/off"], 1, 1, 200),
        (["--steps", "70"], 1, len(ablation.FAST), 70),
        (["--epochs", "2"], 1, len(ablation.FAST), None),
    ],
)
def test_fast_overrides_nothing_that_is_given(asked, args, seeds, cells, steps):
    assert ltml("ablate", "--fast", *args) == 2
    assert {cell.seed for cell in asked["grid"]} == set(range(seeds))
    assert len(asked["grid"]) == seeds * cells
    assert asked["recipe"].steps == steps


@pytest.mark.parametrize(
    "args",
    [
        ["ablate", "--out", "new/grid", "--only", "odd/*/*"],
        ["ablate", "--out", "new/grid", "--seeds", "0"],
        ["ablate", "--out", "new/grid", "--lr", "-1"],
        ["ablate", "--out", "new/grid", "--rates", "0.1"],
        ["ablate", "--out", "new/grid", "--holdout", "0.2", "--rates", "-1"],
        ["ablate", "--out", "new/grid", "--jobs", "0"],
        ["ablate", "--out", "new/grid", "--loss-options", "odd=1"],
        ["ablate", "--out", "new/grid", "--backbone", "odd"],
        ["ablate", "--out", "new/grid", "--device", "odd"],
        ["ablate", "--out", "new/grid", "--augment", "odd"],
        ["ablate", "--out", "new/grid", "--keep", "best"],
        ["audit", "--sampler", "odd"],
        ["audit", "--sampler", "group", "--sampler-options", "ridge=-1"],
        ["audit", "--draws", "-1"],
        ["audit", "new"],
    ],
)
def test_wrong_options_leave_no_folder(tmp_path, monkeypatch, capsys, args):
    monkeypatch.chdir(tmp_path)
    small = ["--data-options", "scale=0.05", "image_size=16", "test_images=40"]
    assert ltml(*args, *(small if "new" not in args[1:2] else [])) == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["uniform", "class-aware", "group"])
def test_audit_prints_rates_and_json(label_csv, capsys, sampler):
    args = ["audit", "--labels", label_csv, "--sampler", sampler, "--draws", 640]
    assert ltml(*args, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["draws"] == 640
    assert set(found["classes"]) == {"class 0", "class 1", "class 2"}
    assert ltml(*args) == 0
    assert "effective images" in capsys.readouterr().out


def test_audit_of_a_data_set_and_of_a_broken_list(tree, label_csv, tmp_path, capsys):
    args = ["--data", "coco", "--root", tree, "--train-split", "train", "--test-split", "test"]
    assert ltml("audit", *args, "--sampler", "group") == 0
    assert "umbrella" in capsys.readouterr().out
    (tmp_path / "bad.csv").write_text("image,labels\na.jpg,0 x\n")
    assert ltml("audit", "--labels", tmp_path / "bad.csv") == 2
    assert "bad.csv" in capsys.readouterr().err
    args = ["audit", "--labels", label_csv, "--sampler", "group", "--sampler-options"]
    assert ltml(*args, "ridge=-1") == 2
    assert "ridge" in capsys.readouterr().err
    assert ltml(*args, "ridge=0.1", "share=equal") == 0


def test_a_table_that_reads_in_two_ways_is_asked_about(tmp_path, capsys):
    file = tmp_path / "train.csv"
    file.write_text("image,labels\na.jpg,red circle\nb.jpg,blue square\n")
    assert ltml("audit", "--labels", file) == 2
    assert "--separator" in capsys.readouterr().err
    assert ltml("audit", "--labels", file, "--separator", "none") == 0
    assert "red circle" in capsys.readouterr().out
    assert ltml("audit", "--labels", file, "--separator", " ") == 0
    assert "circle" in capsys.readouterr().out


def test_files_of_the_users_are_never_overwritten(run, tmp_path, capsys):
    for name, args in (
        ("train.csv", ["compare", run, "--csv"]),
        ("report.html", ["report", run, "--out"]),
        ("photo.jpg", ["predict", run, run, "--csv"]),
    ):
        file = tmp_path / name
        file.write_text("image,labels\n1.jpg,cat\n")
        assert ltml(*args, file) == 2
        assert "exists and holds something else" in capsys.readouterr().err
        assert file.read_text().startswith("image,labels")
        if args[0] != "predict":
            file.unlink()
            assert ltml(*args, file) == ltml(*args, file) == 0  # its own it may replace


BLOCKED = [
    ("compare {run} --csv {file}/a.csv", "is a file; give a folder"),
    ("compare {run} --csv {file}/deep/a.csv", "is a file; give a folder"),
    ("compare {run} --figure {file}/a.png", "is a file; give a folder"),
    ("compare {run} --figure {folder}/a.jpg", "written as .svg, .png or .pdf"),
    ("compare {run} --figure {folder}/a.EPS", "written as .svg, .png or .pdf"),
    ("report {run} --out {file}/a.html", "is a file; give a folder"),
    ("predict {run} {photo} --csv {file}/a.csv", "is a file; give a folder"),
    ("predict {run} {photo} --csv {folder}", "is a folder; give a file"),
    ("evaluate {run} test --csv {file}/a.csv", "is a file; give a folder"),
    ("suspects {tree} --csv {file}/a.csv", "is a file; give a folder"),
]


@pytest.mark.parametrize(("line", "message"), BLOCKED)
def test_what_cannot_be_written_is_refused_before_it_is_made(
    run, tree, tmp_path, capsys, line, message
):
    (tmp_path / "file").write_text("mine")
    photo = sorted((tree / "test").iterdir())[0]
    there = {"run": run, "tree": tree, "photo": photo, "folder": tmp_path}
    assert ltml(*line.format(**there, file=tmp_path / "file").split()) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_bare_ltml_prints_its_help_and_version_its_version(capsys):
    assert ltml() == 0
    assert "train" in capsys.readouterr().out
    assert ltml("--version") == 0
    assert capsys.readouterr().out == f"ltml {__version__}\n"


def test_help_of_audit_is_about_audits(capsys):
    assert ltml("audit", "--help") == 0
    printed = capsys.readouterr().out
    assert "--sampler-options" in printed
    assert "--lr" not in printed


@pytest.mark.slow
def test_ablate_writes_a_table_and_a_figure(tree, tmp_path, capsys):
    args = ["ablate", "--data", "coco", "--root", tree, "--train-split", "train",
            "--test-split", "test", "--out", tmp_path / "grid", "--seeds", 1,
            "--steps", 2, "--batch-size", 8, "--only", "uniform/bce/off",
            "group/dgb/dem"]  # fmt: skip
    assert ltml(*args) == 0
    assert len(pd.read_csv(tmp_path / "grid" / "ablation.csv")) == 2
    assert (tmp_path / "grid" / "ablation.svg").exists()
    assert "group" in capsys.readouterr().out


def test_the_installed_program_answers():
    done = subprocess.run(
        [sys.executable, "-m", "ltml.cli", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for command in ("demo", "train", "predict", "compare", "ablate", "audit", "data"):
        assert command in done.stdout


def test_voc_photos_train(shared_data, undrawn, tmp_path, capsys):
    root = shared_data / "voc_animals" / "VOCdevkit"
    assert ltml("train", "--data", "voc", "--root", root, "--train-split", "train",
                "--test-split", "val", "--out", tmp_path / "voc", *QUICK) == 0  # fmt: skip
    run = Run.load(tmp_path / "voc")
    absent = run.summary["classes_without_positives"]
    assert run.classes.ap.notna().sum() == 20 - len(absent)
    # The only bus is in the test split: whatever its AP, no training had a part in it.
    assert run.scored_by_chance == ["bus"]
    said = capsys.readouterr().out
    assert f"left out, without a positive in the test split: {', '.join(absent)}\n" in said
    assert "scored by chance, without a training image, but in the means: bus\n" in said


@pytest.mark.slow  # of 80 classes in five figures
def test_coco_photos_train(shared_data, tmp_path):
    assert ltml("train", "--data", "coco", "--root", shared_data / "coco128",
                "--train-split", "train2017", "--test-split", "val2017",
                "--out", tmp_path / "coco", *QUICK) == 0  # fmt: skip
    run = Run.load(tmp_path / "coco")
    assert len(run.classes) == 80
    assert run.classes.ap.notna().sum() == 80 - len(run.summary["classes_without_positives"])


@pytest.mark.slow
def test_mosaics_train_with_pretrained_weights(shared_data, tmp_path, caplog):
    weights = shared_data / "weights" / "mobilenet_v3_small_tin64.pth"
    assert ltml("train", "--data", "coco", "--root", shared_data / "photo_mosaics",
                "--train-split", "train", "--test-split", "test", "--out", tmp_path / "m",
                "--backbone", "mobilenet_v3_small", "--weights", weights,
                "--steps", "2", "--batch-size", "8", "--image-size", "64",
                "--quiet") == 0  # fmt: skip
    assert "classifier.3.weight" in caplog.text
    assert Run.load(tmp_path / "m").classes.ap.notna().all()


def test_a_table_is_replaced_though_its_first_class_has_a_comma(tree, undrawn, tmp_path, capsys):
    root = tmp_path / "coco"
    shutil.copytree(tree, root)
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace('"aeroplane"', '"plane, propeller"'))
    code = ltml("train", "--data", "coco", "--root", root, "--train-split", "train",
                "--test-split", "test", "--out", tmp_path / "run", *QUICK)  # fmt: skip
    assert code == 0
    photo = next((root / "test").iterdir())
    for _ in range(2):
        assert ltml("predict", tmp_path / "run", photo, "--csv", tmp_path / "out.csv") == 0
    (tmp_path / "mine.csv").write_text("image,labels\n1.jpg,cat\n")
    assert ltml("predict", tmp_path / "run", photo, "--csv", tmp_path / "mine.csv") == 2
    assert ltml("predict", tmp_path / "run", photo, "--csv", tmp_path) == 2
    assert "is a folder; give a file" in capsys.readouterr().err
