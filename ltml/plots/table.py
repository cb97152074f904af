"""Tables of results for papers: means and deviations over seeds."""

import re

import numpy as np
import pandas as pd

from ltml.core.labels import GROUPS
from ltml.plots import frames

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "·": r"$\cdot$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


class ResultTable(pd.DataFrame):
    """Results of runs, a row per setting, as :func:`table` makes them: a DataFrame that knows its
    LaTeX."""

    @property
    def _constructor(self):
        return ResultTable

    def to_latex(self, *, digits: int = 1, best: bool = True) -> str:
        """Return a ``tabular`` for ``\\usepackage{booktabs}``, with every name escaped.

        Args:
            digits: digits after the point.
            best: set each column's largest mean in bold, and all that round to it.

        Example:
            >>> rows = ResultTable({"name": ["a_b", "c"], "seeds": 1, "mAP": [50.0, 60.0]})
            >>> print(rows.to_latex())
            \\begin{tabular}{lr}
            \\toprule
             & mAP \\\\
            \\midrule
            a\\_b & 50.0 \\\\
            c & \\textbf{60.0} \\\\
            \\bottomrule
            \\end{tabular}
            <BLANKLINE>
        """
        texts = [column for column in self if column == "name"]
        numbers = [c for c in self if c not in ("name", "seeds") and not c.endswith("_deviation")]
        lines = [" & ".join([*("" for _ in texts), *map(escape, numbers)])]
        for _, row in self.iterrows():
            cells = [escape(row[column]) for column in texts]
            for column in numbers:
                mean, spread = row[column], row.get(f"{column}_deviation", np.nan)
                text = "--" if pd.isna(mean) else f"{mean:.{digits}f}"
                top = self[column].max()
                if best and len(self) > 1 and text == f"{top:.{digits}f}":
                    text = rf"\textbf{{{text}}}"
                if not pd.isna(spread):
                    text += rf" $\pm$ {spread:.{digits}f}"
                cells.append(text)
            lines.append(" & ".join(cells))
        head, *body = (rf"{line} \\" for line in lines)
        frame = [rf"\begin{{tabular}}{{{'l' * len(texts)}{'r' * len(numbers)}}}", r"\toprule", head]
        return "\n".join([*frame, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])


def table(runs) -> ResultTable:
    """Tabulate the mAP of settings, over the seeds that were run of each.

    Args:
        runs: one run, several, or name -> run. Those that differ by their seed alone are one row.

    Returns:
        name, seeds, and mAP, head, medium, tail in percent, each followed by its sample deviation
        over seeds (``mAP_deviation``, ...; NaN for one seed). ``to_latex()`` writes it for a
        paper. A group without classes has no column.

    Raises:
        InputError: if no run is given.

    Example:
        >>> import ltml
        >>> ltml.table(ltml.find_runs("runs/demo")[0]).to_latex()  # doctest: +SKIP
    """
    frame = frames.group_map(runs, pool=True)
    rows = frame.drop_duplicates("name")[["name", "seeds"]].set_index("name")
    for group in ("mAP", *GROUPS):
        found = frame[frame.group == group].set_index("name")
        if found["mean"].notna().any():
            rows[group], rows[f"{group}_deviation"] = found["mean"], found.deviation
    return ResultTable(rows.reset_index())


def escape(text) -> str:
    """Escape a name for LaTeX."""
    text = " ".join(str(text).split())
    return re.sub(".", lambda match: _ESCAPES.get(match[0], match[0]), text)
