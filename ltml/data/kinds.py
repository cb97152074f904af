"""Which split a name means: to train on, to validate on, or to test on."""

import re

_KINDS = {  # of splits, by the words that name them
    "train": {"train", "training", "trn", "trainset", "tr"},
    "val": {"val", "valid", "validate", "validation", "valset", "dev", "development", "minival",
            "eval", "evaluation"},
    "test": {"test", "testing", "tst", "testset", "te", "holdout"},
}  # fmt: skip
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")


def kind_of(split: str) -> str | None:
    """``"train"``, ``"val"`` or ``"test"``, as a name such as ``train2017`` says, else None."""
    words = {word.lower() for word in _WORD.findall(split)}
    kinds = [kind for kind, names in _KINDS.items() if names & words]
    return kinds[0] if len(kinds) == 1 else None
