"""Time and memory of a label matrix that is mostly unknown, as LVIS's or Open Images' is."""

import resource
import time

import numpy as np
from scipy.sparse import csr_array

from ltml import LabelMatrix

IMAGES, CLASSES, KNOWN = 1_000_000, 1203, 60  # labels verified on an image: 5 %


def known_labels() -> tuple[csr_array, csr_array]:
    """Which labels are known, 60 an image, and which are present, 5 an image."""
    indices = np.empty((IMAGES, KNOWN), np.int32)
    for first in range(0, IMAGES, 10_000):
        rows = np.arange(first, first + 10_000, dtype=np.int32)[:, None]
        indices[first : first + 10_000] = (rows + 20 * np.arange(KNOWN, dtype=np.int32)) % CLASSES
    present = indices[:, ::12]

    def pattern(indices: np.ndarray) -> csr_array:
        indptr = np.arange(IMAGES + 1, dtype=np.int32) * indices.shape[1]
        ones = np.ones(indices.size, np.int8)
        return csr_array((ones, indices.ravel(), indptr), shape=(IMAGES, CLASSES))

    return pattern(present), pattern(indices)


def main() -> None:
    """Print CPU seconds, and peak memory of the building process in GiB."""
    present, known = known_labels()
    start = time.process_time()
    labels = LabelMatrix(present, known=known)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{labels}\nbuilt in {seconds:.2f} s; peak memory {peak:.2f} GiB, with input and Python")
    for name, job in {
        "negative_counts": lambda: labels.negative_counts,
        "subset of half": lambda: labels.subset(np.arange(0, IMAGES, 2)),
    }.items():
        start = time.process_time()
        job()
        print(f"{name:20} {time.process_time() - start:6.2f} s")


if __name__ == "__main__":
    main()
