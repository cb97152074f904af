"""Tables of results: independent means, and LaTeX in which nothing of a name is a command."""

import numpy as np
import pytest
from synthetic import write_run

import ltml
from ltml import InputError, Run
from ltml.cli import main
from ltml.plots.table import ResultTable, escape


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1, 2):
        write_run(folder / f"plain_seed{seed}", classes=20, epochs=2, seed=seed)
    write_run(folder / "other_100%", classes=20, epochs=2, loss="dgb")
    return folder


def test_means_and_deviations_are_over_seeds(folder):
    runs = [Run.load(path) for path in sorted(folder.iterdir())]
    found = ltml.table(runs).set_index("name")
    tails = [100 * run.summary["tail"] for run in runs if run.name.startswith("plain")]
    assert found.seeds.to_dict() == {"other_100%": 1, "plain": 3}
    assert found["tail"]["plain"] == pytest.approx(np.mean(tails))
    assert found.tail_deviation["plain"] == pytest.approx(np.std(tails, ddof=1))
    assert np.isnan(found.mAP_deviation["other_100%"])


def test_latex_has_the_best_in_bold_and_names_escaped(folder, capsys):
    assert main(["compare", str(folder), "--latex"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r" & mAP & head & medium & tail \\",
    ]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    other, plain = lines[4:6]
    assert other.startswith(r"other\_100\% & ")
    assert plain.count(r"$\pm$") == 4
    table = ltml.table([Run.load(path) for path in sorted(folder.iterdir())])
    for column, cells in zip(
        ("mAP", "head", "medium", "tail"),
        zip(other.split(" & ")[1:], plain.split(" & ")[1:], strict=True),
        strict=True,
    ):
        best = f"\\textbf{{{table[column].max():.1f}}}"
        assert sum(best in cell for cell in cells) >= 1
        assert sum(r"\textbf" in cell for cell in cells) == sum(best in cell for cell in cells)


def test_no_name_is_a_command_of_latex():
    evil = r"\input{x} & 5% $y$ a_b^c #~<>|{} · \end"
    said = escape(evil)
    assert "\\input" not in said
    assert said.count(r"\textbackslash{}") == 2
    for sign in "&%$#_":
        assert f"\\{sign}" in said
    table = ResultTable({"name": [evil, "b"], "seeds": 1, "mAP": [1.0, np.nan]})
    lines = table.to_latex().splitlines()
    assert len(lines) == 8
    assert lines[5] == r"b & -- \\"


def test_a_table_of_nothing_is_said():
    with pytest.raises(InputError, match="nothing was given"):
        ltml.table([])


def test_a_figure_of_the_users_is_not_replaced(folder, tmp_path, capsys):
    mine = tmp_path / "mine.png"
    mine.write_bytes(b"mine")
    assert main(["compare", str(folder), "--figure", str(mine)]) == 2
    assert "exists and holds something else" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir()] == ["mine.png"]
    assert main(["compare", str(folder), "--figure", str(tmp_path / "new.pdf")]) == 0
    assert (tmp_path / "new.pdf").read_bytes().startswith(b"%PDF")
