"""What was published about VOC-LT and COCO-LT: classes, counts, ids, addresses and checksums.

Counts and digests of ids were computed from the published label lists. A file whose checksum is not
known for certain has none here; it is verified by what it holds.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ltml.data.voc import VOC_CLASSES

__all__ = [
    "BENCHMARKS",
    "COCO_CLASSES",
    "COCO_IMAGES",
    "COCO_LT",
    "VOC_LT",
    "Benchmark",
    "PublishedSplit",
    "Remote",
    "digest_of_ids",
]


@dataclass(frozen=True)
class Remote:
    """A file that a benchmark publishes.

    Args:
        url: where it is.
        path: where it goes, relative to the data's folder.
        size: bytes; None where unknown.
        digest: ``"md5:..."`` or ``"sha256:..."``; None where none is known for certain.
    """

    url: str
    path: str
    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class PublishedSplit:
    """One split: number of images, of images without a label, of images a class, and its ids.

    Args:
        images: how many.
        counts: images of each class, in column order.
        ids: :func:`digest_of_ids` of its image ids.
        unlabelled: images without any label.
    """

    images: int
    counts: tuple[int, ...]
    ids: str
    unlabelled: int = 0


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: what it holds, and where its files are.

    Args:
        title: its name in prose.
        classes: names in column order.
        train: the long-tailed training split.
        test: the test split.
        groups: numbers of head, medium and tail classes.
        id_list: the list of training ids, plain text whatever its name.
        archives: the files that hold annotations (and for VOC the images).
        extracted: bytes that the archives' useful part takes on the disk, about.
        image_bytes: mean size of images that are fetched one by one; None where the archives hold
            them.
    """

    title: str
    classes: tuple[str, ...]
    train: PublishedSplit
    test: PublishedSplit
    groups: tuple[int, int, int]
    id_list: Remote
    archives: tuple[Remote, ...]
    extracted: int
    image_bytes: int | None = None


def digest_of_ids(ids: Iterable[str]) -> str:
    """SHA-256 of image ids, whatever their order: sorted, one on each line.

    Example:
        >>> digest_of_ids(["b", "a"]) == digest_of_ids(["a", "b"])
        True
    """
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(ids)).encode()).hexdigest()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split())


def _names(text: str) -> tuple[str, ...]:
    return tuple(" ".join(name.split()) for name in text.split(","))


COCO_CLASSES = _names(
    """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
    hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
    zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
    ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
    glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
    dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
    mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book,
    clock, vase, scissors, teddy bear, hair drier, toothbrush
    """
)

# Tong Wu et al.'s repository. Only the lists are taken; the pickles beside them are never read.
_LISTS = "https://raw.githubusercontent.com/wutong16/DistributionBalancedLoss/master/appendix"
# The address that the servers' keeper calls the long-term one (pytorch/vision pull request 9216);
# addresses and MD5s are torchvision's.
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
# No https: this host answers with the certificate of s3.amazonaws.com.
COCO_IMAGES = "http://images.cocodataset.org"

VOC_LT = Benchmark(
    title="VOC-LT",
    classes=VOC_CLASSES,
    train=PublishedSplit(
        images=1142,
        counts=_numbers("""6 34 8 14 154 17 249 29 479 4 240 48 11 20 775 100 5 82 7 64"""),
        ids="c5436125d33c318e6f13c488f8746384325ab3e9d319efafc10ec18223873559",
    ),
    test=PublishedSplit(
        images=4952,
        counts=_numbers(
            """205 250 289 176 240 183 775 332 545 127 247 433 279 233 2097 254 98 355 259 255"""
        ),
        ids="46f3424f5769b4b9032673364380b6652346ab4d2fa66390cb75adf9d0f95afa",
    ),
    groups=(6, 6, 8),
    id_list=Remote(f"{_LISTS}/VOCdevkit/longtail2012/img_id.txt", "longtail2012/img_id.txt"),
    archives=(
        Remote(
            f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
            "VOCtrainval_11-May-2012.tar",
            1_999_639_040,
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
        ),
        Remote(
            f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar",
            "VOCtest_06-Nov-2007.tar",
            451_020_800,
            "md5:b6e924de25625d8de591ea690078ad9f",
        ),
    ),
    extracted=2_300_000_000,
)

COCO_LT = Benchmark(
    title="COCO-LT",
    classes=COCO_CLASSES,
    train=PublishedSplit(
        images=1909,
        counts=_numbers(
            """1128 37 276 32 9 41 18 87 20 50 11 13 8 97 19 49 70 17 7 10 8 6 7 7 100 39 189 31 24
            11 12 8 35 10 25 21 17 10 20 460 84 498 126 207 173 366 39 35 44 36 29 25 14 45 16
            73 585 153 164 44 624 25 200 137 70 89 73 127 91 175 9 237 119 292 87 113 15 21 6 11"""
        ),
        ids="2a3c9bbd555aba32414d2cac08dd9fadc1d0e6bfdfb936083ba22e6e43df63aa",
    ),
    test=PublishedSplit(
        images=5000,
        counts=_numbers(
            """2693 149 535 159 97 189 157 250 121 191 86 69 37 235 125 184 177 128 65 87 89 49 85
            101 228 174 292 145 105 84 120 49 169 91 97 100 127 149 167 379 110 390 155 181 153
            314 103 76 98 85 71 81 51 153 62 124 580 195 172 149 501 149 207 183 88 145 106 214
            54 115 8 187 101 230 204 137 28 94 9 34"""
        ),
        ids="ebda95296b503a4f07d507167309df3df2263c2f7fdfc4267a103c2efb442710",
        unlabelled=48,
    ),
    groups=(22, 33, 25),
    id_list=Remote(f"{_LISTS}/coco/longtail2017/img_id.pkl", "longtail2017/img_id.txt"),
    archives=(
        Remote(
            f"{COCO_IMAGES}/annotations/annotations_trainval2017.zip",
            "annotations_trainval2017.zip",
            252_907_541,
            "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        ),
    ),
    extracted=490_000_000,
    image_bytes=163_000,  # val2017.zip: 815,585,330 bytes of 5000 images
)

BENCHMARKS = {"voc-lt": VOC_LT, "coco-lt": COCO_LT}
