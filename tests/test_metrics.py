import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ltml import InputError, LabelMatrix, average_precision, group_map


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([0, 1, 3]))
def test_agrees_with_scikit_learn(seed, n, digits):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, 4)).round(digits) * 10  # rounded: ties
    targets = rng.integers(0, 2, size=(n, 4))
    targets[:, 3] = 0
    ap = average_precision(torch.tensor(scores), torch.tensor(targets))
    for c in range(4):
        if targets[:, c].any():
            expected = average_precision_score(targets[:, c], scores[:, c])
            assert ap[c] == pytest.approx(expected, abs=1e-6)
        else:
            assert np.isnan(ap[c])


def test_large_logits_keep_their_order():
    """A float32 sigmoid would tie 30 and 40, and lose a perfect ranking."""
    scores, targets = torch.tensor([[30.0], [40.0], [20.0]]), torch.tensor([[0], [1], [0]])
    assert average_precision(scores, targets) == [1.0]


def test_absent_classes_are_left_out_of_the_means():
    labels = LabelMatrix(np.repeat([[1, 0, 0]], 100, axis=0))
    ap = np.array([0.5, np.nan, 1.0])
    means = group_map(ap, labels.groups())
    assert means["mAP"] == 0.75
    assert means["tail"] == 1.0
    assert np.isnan(means["medium"])


def test_bad_input_is_named():
    with pytest.raises(InputError, match=r"scores \(2, 3\) and targets \(3, 2\)"):
        average_precision(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(InputError, match="NaN at image 1, class 0"):
        average_precision(torch.tensor([[0.0], [torch.nan]]), torch.ones(2, 1))
