"""Archives: what is in them comes out, whatever their makers intended."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from made_files import DE, docx, results, zipped

TEXT = DE.paragraphs[0]


def tarred(members: dict[str, bytes], mode="w:") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_tar_plain_and_packed(mode):
    archive = tarred({"a.txt": TEXT.encode(), "b/c.md": b"second", "d.docx": docx()}, mode)
    found = results(archive, "x.tgz")
    assert found[:2] == [("x.tgz!a.txt", TEXT), ("x.tgz!b/c.md", "second")]
    assert found[2][0] == "x.tgz!d.docx"
    assert TEXT in found[2][1]


@pytest.mark.parametrize(("pack", "ending"), [(gzip.compress, "gz"), (bz2.compress, "bz2"), (lzma.compress, "xz")])
def test_single_files_that_are_packed(pack, ending):
    assert results(pack(TEXT.encode()), f"d/a.txt.{ending}") == [(f"d/a.txt.{ending}!a.txt", TEXT)]
    assert results(pack(b""), f"a.txt.{ending}") == [(f"a.txt.{ending}!a.txt", "!no text")]
    assert results(pack(TEXT.encode())[:-9], f"a.txt.{ending}") == [(f"a.txt.{ending}", "!broken")]


def test_archives_in_archives_with_every_member_named_once():
    inner = zipped({"deep.txt": "deep", "p.bin": bytes(100)})
    middle = tarred({"inner.zip": inner, "m.txt": b"middle"}, "w:gz")
    outer = zipped(
        {"middle.tar.gz": middle, "empty/": "", "o.py": "print(1)", "broken.zip": b"PK\x03\x04", "old.rar": b"Rar!"}
    )
    assert results(outer, "o.zip") == [
        ("o.zip!middle.tar.gz!inner.zip!deep.txt", "deep"),
        ("o.zip!middle.tar.gz!inner.zip!p.bin", "!binary"),
        ("o.zip!middle.tar.gz!m.txt", "middle"),
        ("o.zip!o.py", "print(1)"),
        ("o.zip!broken.zip", "!broken"),
        ("o.zip!old.rar", "!binary"),
    ]


def test_members_that_folders_would_not_give_either():
    archive = zipped(
        {".env": "SECRET=1", ".git/config": "x", "node_modules/a.js": "x", "__MACOSX/._a": "x", "a.exe": "x"}
    )
    assert [reason for _, reason in results(archive, "a.zip")] == [
        "!hidden", "!not entered", "!not entered", "!not entered", "!binary"
    ]  # fmt: skip


def test_names_lead_nowhere_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["../../evil.txt", "/etc/evil.txt", "C:\\evil.txt", "a\x1b[31m\nb.txt", "ok.txt", "ok.txt"]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names[:-1]:
            archive.writestr(name, f"text of {len(name)}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(names[-1], f"text of {len(names[-1])}")
    found = results(data.getvalue(), "a.zip")
    assert [text for _, text in found] == [f"text of {len(name)}" for name in names]
    assert found[3][0] == "a.zip!a\\x1b[31m\\x0ab.txt"
    assert list(tmp_path.iterdir()) == []


def test_links_and_devices_in_a_tar_are_not_followed():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind in (
            ("l", tarfile.SYMTYPE),
            ("h", tarfile.LNKTYPE),
            ("d", tarfile.CHRTYPE),
            ("f", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [reason for _, reason in results(data.getvalue(), "a.tar")] == [
        "!link",
        "!link",
        "!special file",
        "!special file",
    ]


def test_encrypted_members_are_named():
    archive = bytearray(zipped({"a.txt": "secret", "b.txt": "open"}, zipfile.ZIP_STORED))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        archive[archive.index(signature) + place] |= 1  # the first member says that it is encrypted
    assert results(bytes(archive), "a.zip") == [("a.zip!a.txt", "!encrypted"), ("a.zip!b.txt", "open")]


def test_damaged_members_do_not_hurt_the_others():
    archive = bytearray(zipped({"a.txt": TEXT, "b.txt": "second"}, zipfile.ZIP_STORED))
    archive[archive.index(TEXT.encode()) + 5] ^= 1
    assert results(bytes(archive), "a.zip") == [("a.zip!a.txt", "!broken"), ("a.zip!b.txt", "second")]


def test_a_tar_that_is_cut_gives_what_was_whole():
    archive = tarred({"a.txt": TEXT.encode(), "b.txt": TEXT.encode() * 1000}, "w:gz")
    found = results(archive[: len(archive) // 2], "a.tgz")
    assert found[-1][1] == "!broken"


def test_bombs_are_stopped():
    bomb = gzip.compress(bytes(200_000_000))
    assert results(bomb, "a.gz") == [("a.gz", "!archive bomb")]
    assert results(zipped({"a.txt": b" " * 200_000_000}), "a.zip")[-1] == ("a.zip", "!archive bomb")
    nested = zipped({"a.zip": zipped({"b.gz": bomb})})
    assert results(nested, "o.zip") == [("o.zip!a.zip!b.gz", "!archive bomb")]
    assert results(gzip.compress(b"x" * 3_000_000), "a.gz", max_expanded_mb=2) == [("a.gz", "!too large")]


def test_a_bomb_of_members_that_share_their_bytes():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0", bytes(30_000_000))
        shared = archive.infolist()[0]
        for number in range(1, 100):
            info = zipfile.ZipInfo(f"{number}")
            for name in ("header_offset", "CRC", "compress_size", "file_size", "compress_type", "orig_filename"):
                setattr(info, name, getattr(shared, name))
            archive.filelist.append(info)
    found = results(data.getvalue(), "a.zip")
    assert {text for _, text in found} <= {"!binary", "!broken", "!archive bomb"}


def test_limits_to_number_and_depth():
    assert results(zipped({f"{n}.txt": "x" for n in range(9)}), "a.zip", max_members=5)[5:] == [
        ("a.zip", "!too large")
    ]
    archive = b"text"
    for _ in range(4):
        archive = zipped({"a": archive})
    assert results(archive, "a", max_depth=4) == [("a!a!a!a!a", "text")]
    assert results(archive, "a", max_depth=3) == [("a!a!a!a", "!nested too deeply")]


def test_an_archive_that_contains_itself_ends():
    # A gzip quine would unpack to itself for ever; many levels of the same do as well.
    archive = b"x"
    for _ in range(40):
        archive = gzip.compress(archive)
    assert results(archive, "a.gz")[0][1] == "!nested too deeply"


def test_large_members_take_no_memory(tmp_path):
    line = "many words in a long line of text\n"
    found = results(gzip.compress(line.encode() * 400_000), "a.txt.gz", memory_mb=512)
    assert found[0][1] == line * 400_000
