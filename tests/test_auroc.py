"""The area under the ROC curve."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ltml import InputError
from ltml.core.metrics import auroc


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([0, 1, 3]))
def test_is_that_of_scikit_learn_over_the_known_entries(seed, n, digits):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 5)).round(digits)  # rounded: ties
    targets = rng.integers(0, 2, size=(n, 5)).astype(float)
    targets[:, 3], targets[:, 4] = 0, 1
    targets[rng.random((n, 5)) < 0.2] = np.nan
    found = auroc(torch.tensor(scores), torch.tensor(targets))
    for c in range(5):
        known = ~np.isnan(targets[:, c])
        if len(np.unique(targets[known, c])) == 2:
            assert found[c] == pytest.approx(roc_auc_score(targets[known, c], scores[known, c]))
        else:
            assert np.isnan(found[c])


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match="differ"):
        auroc(torch.zeros(3, 2), torch.zeros(3, 3))
