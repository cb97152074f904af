import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.core.errors import InputError
from ltml.data.finder import Finder
from ltml.data.splits import is_file


def tree(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


FORMS = {
    "a path": "train_images/3.jpg",
    "no folder": "3.jpg",
    "no extension": "train_images/3",
    "neither": "3",
    "upper case": "train_images/3.JPG",
    "another extension": "3.jpeg",
    "an original": "3.dcm",
    "Colab": "/content/drive/MyDrive/photos/train_images/3.jpg",
    "Windows": "C:\\Users\\me\\photos\\train_images\\3.jpg",
    "Windows, mixed": "D:/photos\\train_images/3.jpg",
    "up and down": "../input/set/train_images/3.jpg",
    "another folder": "sub/3.jpg",
    "an address": "https://example.org/photos/3.jpg?size=large",
    "an escaped address": "file:///srv/train%5Fimages/3.jpg",
    "Label Studio": "/data/local-files/?d=photos/train_images/3.jpg",
    "spreadsheet": "003",
}


@pytest.mark.parametrize("name", FORMS.values(), ids=FORMS)
def test_a_name_of_any_form_finds_its_image(tmp_path, name):
    tree(tmp_path, *(f"train_images/{i}.jpg" for i in (1, 3, 33)), "train_images/notes.txt")
    finder = Finder(tmp_path)
    assert finder.find([name]) == [tmp_path / "train_images/3.jpg"]
    assert finder.fits(name)
    assert not finder.fits("4")


def test_numbers_without_their_zeros(tmp_path):
    tree(tmp_path, "images/000012.png", "images/000120.png")
    assert Finder(tmp_path).find(["12"])[0].name == "000012.png"


def test_dots_are_part_of_an_id(tmp_path):
    tree(tmp_path, "images/1.2.840.1.jpg", "images/1.2.840.2.jpg")
    found = Finder(tmp_path).find(["1.2.840.2", "1.2.840.1.dcm"])
    assert [path.name for path in found] == ["1.2.840.2.jpg", "1.2.840.1.jpg"]


def test_the_longest_tail_decides_then_extension_then_own_folder(tmp_path):
    tree(tmp_path, "a/x/1.jpg", "b/x/1.jpg", "b/1.jpg", "c/1.png", "d/deep/2.jpg", "e/2.jpg")
    finder = Finder(tmp_path)
    assert finder.find(["/elsewhere/b/x/1.jpg"]) == [tmp_path / "b/x/1.jpg"]
    assert finder.find(["B/1.jpg"]) == [tmp_path / "b/1.jpg"]
    assert finder.find(["old/1.png"]) == [tmp_path / "c/1.png"]
    assert finder.find(["2"], near=tmp_path / "d") == [tmp_path / "d/deep/2.jpg"]
    tree(tmp_path, "train/5.jpg", "5.jpg")
    assert Finder(tmp_path).find(["5.jpg"], near=tmp_path / "train") == [tmp_path / "train/5.jpg"]
    assert Finder(tmp_path).find(["5.jpg"]) == [tmp_path / "5.jpg"]


def ask(finder, names, **options):
    with pytest.raises(InputError) as caught:
        finder.find(names, **options)
    return str(caught.value)


def patterns(message):
    """The answers that a question offers."""
    return re.findall(r"--image-pattern '([^']+)'", message)


@pytest.mark.parametrize(
    ("files", "names", "wanted"),
    [
        (["im/7.jpg", "im/7.png", "im/8.jpg"], ["7"], "im/{}.jpg"),
        (["train/a/7.jpg", "train/b/7.jpg"], ["7.jpg"], "{split}/a/{}.jpg"),
        (["jpg/train_7.jpg", "tif/train_7.tif"], ["train_7"], "jpg/{}.jpg"),
        (["train/ab_red.png", "train/ab_green.png"], ["ab"], "train/{}_green.png"),
        (["img/prefix_ab.png"], ["ab"], "img/prefix_{}.png"),
    ],
)
def test_two_files_are_asked_about_and_every_offered_pattern_answers(
    tmp_path, files, names, wanted
):
    tree(tmp_path, *files)
    message = ask(Finder(tmp_path), names, split="train")
    offered = patterns(message)
    assert wanted in offered
    assert len(offered) == len({f for f in files if not f.startswith("im/8")})
    for pattern in offered:
        found = Finder(tmp_path, pattern=pattern).find(names, split="train")
        assert found[0].relative_to(tmp_path).as_posix() in files


@pytest.mark.parametrize("split", ["train", "RFMiD_Training_Labels", "north", "validate", None])
def test_a_folder_that_names_the_split_decides(tmp_path, split):
    tree(tmp_path, "Training/1.png", "Test/1.png", "val2017/1.png", "north/1.png")
    finder = Finder(tmp_path)
    if split is None:
        assert len(patterns(ask(finder, ["1"]))) == 4
        return
    folder = {"north": "north", "validate": "val2017"}.get(split, "Training")
    assert finder.find(["1"], split=split) == [tmp_path / folder / "1.png"]


def test_what_is_there_is_said_where_nothing_fits(tmp_path):
    tree(tmp_path, *(f"train_images/{i}.jpg" for i in range(3000)), "logo.png")
    message = ask(Finder(tmp_path), ["x.jpg", "1.jpg", "y.jpg"], place=lambda r: f"t.csv, line {r}")
    assert message.startswith("t.csv, line 0: image 'x.jpg' is missing (and 1 more)")
    assert re.search(r"train_images/ holds 3,000 images such as \d+\.jpg", message)
    assert "holds no image at all" in ask(Finder(tree(tmp_path / "empty", "a.txt")), ["x.jpg"])


def test_two_names_of_one_file_are_refused(tmp_path):
    tree(tmp_path, "a/1.jpg")
    assert "are both found at 'a/1.jpg'" in ask(Finder(tmp_path), ["x/1.jpg", "y/1.jpg"])
    assert len(Finder(tmp_path).find(["a/1.jpg", "./a/1.jpg", "a\\1.jpg"])) == 3  # one name


def test_links_are_followed_but_never_round(tmp_path):
    tree(tmp_path, "disk/photos/1.jpg", "root/other/2.jpg")
    (tmp_path / "root/linked").symlink_to(tmp_path / "disk/photos")
    (tmp_path / "disk/photos/up").symlink_to(tmp_path / "disk")
    (tmp_path / "root/self").symlink_to(tmp_path / "root")
    finder = Finder(tmp_path / "root")
    assert finder.find(["1"]) == [tmp_path / "root/linked/1.jpg"]
    assert len(finder.files) <= 3


def test_hidden_files_are_no_images(tmp_path):
    tree(tmp_path, "__MACOSX/a/1.jpg", "a/._1.jpg", ".cache/1.jpg", "a/1.jpg")
    assert Finder(tmp_path).files == ["a/1.jpg"]


def test_where_images_lie_in_words(tmp_path):
    tree(tmp_path, *(f"images_{i:03}/{i}.png" for i in range(1, 13)), "0.png")
    finder = Finder(tmp_path)
    assert finder.where(finder.find(["1", "2"])) == "images_001/ and images_002/"
    assert finder.where(finder.find(map(str, range(1, 13)))) == (
        "images_001/ to images_012/ (12 folders)"
    )
    assert finder.where(finder.find(["0"])) == "the root"


def test_a_pattern_needs_its_place():
    with pytest.raises(InputError, match=r"has no \{\}, where the name goes"):
        Finder(".", pattern="train/x.png")


NAMES = st.text("ab.1/\\:é\x00 {}%?", max_size=12)


@given(st.lists(NAMES, max_size=6))
@settings(deadline=None, max_examples=200)
def test_any_name_is_found_or_refused_in_one_line(tmp_path_factory, names):
    root = tmp_path_factory.getbasetemp() / "any"
    tree(root, "a/b.jpg", "b/b.png", "1.jpg")
    found = read_or_error(lambda _: Finder(root).find(names), root, also="name ")
    assert found is None or all(is_file(path) for path in found)
