import io
import tarfile
import zipfile

import pytest

from ltml.data.archives import extract_tar, extract_zip
from ltml.errors import InputError


def make_tar(path, *members, mode="w"):
    """Members: (name, bytes), or a TarInfo of whatever kind."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_tar(tmp_path):
    archive = make_tar(
        tmp_path / "a.tar", special("top", tarfile.DIRTYPE), ("top/a", b"1"), ("./top/sub/b", b"22")
    )
    out = tmp_path / "out"
    assert extract_tar(archive, out, progress=False) == 2
    assert files_of(out) == {"top/a": b"1", "top/sub/b": b"22"}
    strip = lambda name: name[4:] if name.startswith("top/s") else None  # noqa: E731
    assert extract_tar(archive, tmp_path / "some", place=strip, progress=False) == 1
    assert files_of(tmp_path / "some") == {"sub/b": b"22"}
    assert extract_tar(archive, out, progress=False) == 2  # again, as after an interruption


BAD = {
    "absolute": (("/etc/x", b"1"), "may lead out"),
    "dots": (("../x", b"1"), "may lead out"),
    "inner dots": (("a/../../x", b"1"), "may lead out"),
    "backslash": (("..\\x", b"1"), "may lead out"),
    "symlink": (special("l", tarfile.SYMTYPE, "/etc"), "a link to '/etc'; refused"),
    "symlink inside": (special("l", tarfile.SYMTYPE, "ok"), "a link to 'ok'; refused"),
    "hard link": (special("l", tarfile.LNKTYPE, "../x"), "a link to '../x'; refused"),
    "device": (special("d", tarfile.CHRTYPE), "a device or a pipe; refused"),
    "pipe": (special("p", tarfile.FIFOTYPE), "a device or a pipe; refused"),
    "control": (("a\nb", b"1"), "unprintable"),
}


@pytest.mark.parametrize("what", BAD)
def test_malicious_tar(tmp_path, what):
    """Refused before anything is written, though the bad member comes last."""
    member, said = BAD[what]
    archive = make_tar(tmp_path / "a.tar", ("ok", b"1"), member)
    with pytest.raises(InputError, match=said) as error:
        extract_tar(archive, tmp_path / "out" / "in", progress=False)
    assert str(error.value).startswith(f"{archive}: member ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_link_that_is_left_out_does_no_harm(tmp_path):
    archive = make_tar(
        tmp_path / "a.tar", ("ok", b"1"), special("l", tarfile.SYMTYPE, "/etc"), ("l/x", b"1")
    )
    place = lambda name: name if name == "ok" else None  # noqa: E731
    extract_tar(archive, tmp_path / "out", place=place, progress=False)
    assert files_of(tmp_path / "out") == {"ok": b"1"}


def test_a_link_on_the_disk_is_not_followed(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "a").symlink_to(outside)
    (outside / "kept").write_bytes(b"kept")
    (out / "b").symlink_to(outside / "kept")
    with pytest.raises(InputError, match=r"'a/x' is refused: .* outside the destination"):
        extract_tar(make_tar(tmp_path / "a.tar", ("a/x", b"1")), out, progress=False)
    with pytest.raises(InputError, match=r"'b' is refused: .* outside the destination"):
        extract_tar(make_tar(tmp_path / "a.tar", ("b", b"new")), out, progress=False)
    with pytest.raises(InputError, match="leads out of"):
        extract_zip(make_zip(tmp_path / "a.zip", ("a/x", "1")), out, ["a/x"])
    extract_zip(make_zip(tmp_path / "a.zip", ("b", "new")), out, ["b"])  # the link is replaced
    assert files_of(outside) == {"kept": b"kept"}
    assert (out / "b").read_bytes() == b"new"
    assert not (out / "b").is_symlink()


def test_tar_limits(tmp_path):
    archive = make_tar(tmp_path / "a.tar", ("a", b"1" * 1000), ("b", b"1" * 1000))
    with pytest.raises(InputError, match="unpacks to 2,000 bytes, more than the 1,999 that it may"):
        extract_tar(archive, tmp_path / "out", limit=1999, progress=False)
    sparse = tarfile.TarInfo("sparse")
    sparse.pax_headers = {
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "sparse",
        "GNU.sparse.size": str(10**12), "GNU.sparse.map": "0,0",
    }  # fmt: skip
    make_tar(archive, sparse)
    with pytest.raises(InputError, match=r"a sparse file; refused|more than the"):
        extract_tar(archive, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_not_expected(tmp_path, mode):
    archive = make_tar(tmp_path / "a.tar", ("a", b"0" * 10**6), mode=mode)
    with pytest.raises(InputError, match="is no tar archive that can be read"):
        extract_tar(archive, tmp_path / "out", progress=False)


@pytest.mark.parametrize("cut", [0, 100, 512, 600, 3000])
def test_damaged_tar(tmp_path, cut):
    archive = make_tar(tmp_path / "a.tar", ("a", b"1" * 1000), ("b", b"1" * 1000))
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a.tar is no tar archive that can be read"):
        extract_tar(archive, tmp_path / "out", progress=False)
    assert all(body == b"1" * 1000 for body in files_of(tmp_path / "out").values())


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.writestr(*member)
    return path


def test_zip(tmp_path):
    archive = make_zip(
        tmp_path / "a.zip",
        ("annotations/a.json", "{}"),
        ("annotations/b.json", "[]"),
        ("../c", "x"),
    )
    extract_zip(archive, tmp_path / "out", ["annotations/a.json"])
    assert files_of(tmp_path / "out") == {"annotations/a.json": b"{}"}
    with pytest.raises(InputError, match=r"has no member 'annotations/d.json'"):
        extract_zip(archive, tmp_path / "out", ["annotations/d.json"])
    with pytest.raises(InputError, match="may lead out"):
        extract_zip(archive, tmp_path / "out", ["../c"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_zip_bomb(tmp_path):
    archive = make_zip(tmp_path / "a.zip", ("a", b"0" * 10**7))
    assert archive.stat().st_size < 20_000
    with pytest.raises(InputError, match=r"unpacks to 10,000,000 bytes, more than the 1,000,000"):
        extract_zip(archive, tmp_path / "out", ["a"], limit=10**6)
    # One that announces less than it holds: both headers are made to say 1000 bytes.
    size = (10**7).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(InputError):
        extract_zip(archive, tmp_path / "out", ["a"], limit=10**6)
    assert files_of(tmp_path / "out") == {}


def test_odd_zips(tmp_path):
    link = zipfile.ZipInfo("l")
    link.external_attr = 0o120777 << 16
    archive = make_zip(tmp_path / "a.zip", (link, "/etc/passwd"), ("a", b"0123456789" * 1000))
    with pytest.raises(InputError, match="'l' is no plain file; refused"):
        extract_zip(archive, tmp_path / "out", ["l"])
    body = archive.read_bytes()
    encrypted = bytearray(body)
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[body.rindex(header) + offset] |= 1
    archive.write_bytes(encrypted)
    with pytest.raises(InputError, match="'a' is encrypted; refused"):
        extract_zip(archive, tmp_path / "out", ["a"])
    for damaged in (b"", b"PK", body[:-30], body[: len(body) // 2]):
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match="is no zip archive that can be read"):
            extract_zip(archive, tmp_path / "out", ["a"])
    # Five bytes into the data: a local header has 30 bytes, among them the time, and the name.
    place = body.rindex(b"PK\x03\x04") + 30 + len("a") + 5
    archive.write_bytes(body[:place] + b"\xff\xff\xff" + body[place + 3 :])
    with pytest.raises(InputError, match="is no zip archive that can be read"):
        extract_zip(archive, tmp_path / "out", ["a"])
    assert files_of(tmp_path / "out") == {}
