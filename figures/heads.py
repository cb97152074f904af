"""Train the 360 heads that notebook 08 shows where no kernel runs; six minutes on one CPU core.

Run from anywhere: ``python figures/heads.py``. It writes ``heads.json`` beside it.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import ltml
from ltml.widgets.heads import compute_ahead

STEPS, HEAD_STEPS = 160, 300  # as the notebook has them


def bank():
    """Return the notebook's bank of feature maps."""
    data = ltml.load("pictograms")
    with TemporaryDirectory() as folder:
        run = ltml.fit(ltml.Recipe(steps=STEPS), data=data, out=f"{folder}/run", progress=False)
        return ltml.bank(run, data, progress=False)


if __name__ == "__main__":
    compute_ahead(bank(), Path(__file__).with_name("heads.json"), steps=HEAD_STEPS)
