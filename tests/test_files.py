import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read_or_error

from ltml.errors import InputError
from ltml.files import Root, check_class_names, check_name, quote, read_list, read_text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("/etc/passwd", "lead out"),
        ("../x", "lead out"),
        ("a/../../x", "lead out"),
        ("..", "lead out"),
        ("a\\b", "lead out"),
        ("a\nb", "unprintable"),
        ("a\x00b", "unprintable"),
        ("\ud800", "unprintable"),
    ],
)
def test_name_is_refused(name, why):
    with pytest.raises(InputError, match=f"list.txt, line 3: .*{why}"):
        check_name(name, where="list.txt, line 3", folders=True)


def test_slash_needs_folders():
    assert check_name("a/b.jpg", where="x", folders=True) == "a/b.jpg"
    assert check_name("..a.jpg", where="x") == "..a.jpg"
    with pytest.raises(InputError, match="bare name"):
        check_name("a/b", where="x")


@pytest.mark.parametrize("names", [[], ["a", "a"], [" "], ["a\nb"], [1], "cat"])
def test_class_names_are_refused(names):
    with pytest.raises(InputError, match=r"^classes"):
        check_class_names(names, where="classes")


def test_list_takes_the_first_word_of_each_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbf000001 -1\r\n\r\n  000002\t 1\n000003")
    assert read_list(path) == [(1, "000001"), (3, "000002"), (4, "000003")]
    path.write_bytes(b"1\r2\r")  # as old Macs wrote it
    assert read_list(path) == [(1, "1"), (2, "2")]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"a\nb\na 1\n", "line 3: 'a' stands on line 1"),
        (b"\xff\xfea\x00", "not UTF-8 text: byte 0 is 0xff"),
    ],
)
def test_broken_list(tmp_path, content, why):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        read_list(path)
    assert str(path) in str(caught.value)


def test_read_text_refuses_what_is_no_small_file(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        read_text(tmp_path / "none")
    with pytest.raises(InputError, match="is not a file"):
        read_text(tmp_path)
    (tmp_path / "big").write_bytes(b"12345")
    assert read_text(tmp_path / "big", limit=5) == "12345"
    with pytest.raises(InputError, match="at most 4"):
        read_text(tmp_path / "big", limit=4)
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    with pytest.raises(InputError, match="is not a file"):
        read_text(tmp_path / "pipe")


def test_root_follows_links_only_inside(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "sub", outside):
        folder.mkdir(parents=True)
        (folder / "a.jpg").touch()
    (root / "in.jpg").symlink_to(root / "sub" / "a.jpg")
    (root / "out.jpg").symlink_to(outside / "a.jpg")
    (root / "linked").symlink_to(outside)
    (root / "loop.jpg").symlink_to(root / "loop.jpg")
    (tmp_path / "rootlink").symlink_to(root)
    (tmp_path / "root-other").mkdir()  # shares the prefix of the name only
    (tmp_path / "root-other" / "a.jpg").touch()
    (root / "sly.jpg").symlink_to(tmp_path / "root-other" / "a.jpg")

    for folder in (root, tmp_path / "rootlink"):
        found = Root(folder)
        assert found.find("sub/a.jpg", where="x") == folder / "sub" / "a.jpg"
        assert found.find("in.jpg", where="x") == folder / "in.jpg"
        assert found.find("none.jpg", where="x") is None
        assert found.find("in.jpg/a.jpg", where="x") is None
        for name in ("out.jpg", "linked/a.jpg", "sly.jpg"):
            with pytest.raises(InputError, match="leads out of"):
                found.find(name, where="x")
        for name in ("sub", "loop.jpg", "n" * 300):
            with pytest.raises(InputError, match=r"^x: "):
                found.find(name, where="x")
    with pytest.raises(InputError, match="not a folder"):
        Root(root / "sub" / "a.jpg")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_a_list_or_an_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(content)
    ids = read_or_error(read_list, path)
    if ids is not None:
        assert len({name for _, name in ids}) == len(ids) > 0
        assert all(name and not name[0].isspace() for _, name in ids)


@given(st.lists(st.text("0123456789_", min_size=1, max_size=12), min_size=1, unique=True))
@settings(deadline=None)
def test_a_list_reads_back(tmp_path_factory, ids):
    path = tmp_path_factory.getbasetemp() / "ids.txt"
    path.write_text("\n".join(ids))
    assert read_list(path) == list(enumerate(ids, 1))


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.just([1])))
def test_quote_is_one_short_line(value):
    text = quote(value)
    assert len(text) <= 80
    assert text.encode()
    assert not set(text) & set("\n\r\x00")
