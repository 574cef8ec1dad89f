import os
import time
from pathlib import Path

import pytest
from corpus_texts import settings_for

from crystalline.corpus import files
from crystalline.corpus.files import File, Skipped, source_fingerprint, walk
from crystalline.errors import UserError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    return root


def outcome(*sources: Path, **choices) -> dict[str, str]:
    """{path below the first source: "read" or the reason why not}"""
    found = {}
    for item in walk(settings_for(*sources, **choices).corpus):
        name = os.path.relpath(item.source, sources[0])
        assert name not in found
        found[name] = "read" if isinstance(item, File) else item.reason
    return found


def test_every_entry_comes_out_once_with_what_happens_to_it(tmp_path):
    root = make(
        tmp_path / "s", "a.txt", "code.unknown-extension", "no_extension", "deep/er/b.rst", ".env",
        ".git/config", "__pycache__/x.txt", "node_modules/p/i.js", "site-packages/p.py", "page.HTML",
        "letter.docx", "photo.JPG", "song.MP3", "run/crystalline.toml", "run/manifest.json", "run/corpus/train.jsonl",
    )  # fmt: skip
    os.mkfifo(root / "pipe")
    assert outcome(root) == {
        "a.txt": "read", "code.unknown-extension": "read", "no_extension": "read", "deep/er/b.rst": "read",
        ".env": "hidden", ".git": "not entered", "__pycache__": "not entered", "node_modules": "not entered",
        "site-packages": "not entered", "page.HTML": "read", "letter.docx": "read", "photo.JPG": "read",
        "song.MP3": "binary", "run": "run folder", "pipe": "special file",
    }  # fmt: skip


def test_links_are_not_followed(tmp_path):
    outside = make(tmp_path / "outside", "secret.txt")
    root = make(tmp_path / "s", "d/a.txt")
    (root / "d" / "loop").symlink_to(root)
    (root / "out").symlink_to(outside)
    (root / "file").symlink_to(outside / "secret.txt")
    (root / "broken").symlink_to(root / "nothing")
    assert outcome(root) == {
        "d/a.txt": "read", "d/loop": "link", "out": "link", "file": "link", "broken": "link"
    }  # fmt: skip


def test_a_source_that_is_itself_a_link_is_read(tmp_path):
    make(tmp_path / "real", "a.txt")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert outcome(tmp_path / "link") == {"a.txt": "read"}


def test_exclude_by_name_by_path_and_of_folders(tmp_path):
    root = make(tmp_path / "s", "a.txt", "b.min.js", "x/b.min.js", "tests/t.py", "x/tests/t.py", "x/keep.py")
    assert outcome(root, exclude=["*.min.js", "tests", "x/k*"]) == {
        "a.txt": "read", "b.min.js": "excluded", "x/b.min.js": "excluded", "tests": "excluded",
        "x/tests": "excluded", "x/keep.py": "excluded",
    }  # fmt: skip


def test_a_named_file_is_judged_by_content_not_by_extension(tmp_path):
    root = make(tmp_path, "notes.so", ".hidden", "page.html")
    reasons = [
        "read" if isinstance(found, File) else found.reason
        for found in walk(settings_for(root / "notes.so", root / ".hidden", root / "page.html").corpus)
    ]
    assert reasons == ["read", "read", "read"]


def test_order_is_by_path_whatever_the_order_of_sources(tmp_path):
    root = make(tmp_path, "b/2.txt", "b/10.txt", "b/a/z.txt", "a/x.txt", "a.txt")
    one = [f.source for f in walk(settings_for(root / "b", root / "a", root / "a.txt").corpus)]
    two = [f.source for f in walk(settings_for(root / "a.txt", root / "b", root / "a").corpus)]
    assert one == two == sorted(one, key=lambda name: Path(name).parts)
    assert len(one) == 5


def test_very_deep_folders_are_walked(tmp_path):
    path = tmp_path
    for _ in range(600):
        path = path / "d"
    path.mkdir(parents=True)
    (path / "a.txt").write_text("deep")
    assert [type(found) for found in walk(settings_for(tmp_path).corpus)] == [File]


def test_a_name_that_is_not_utf8_is_shown(tmp_path):
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")).write_text("x")
    (found,) = walk(settings_for(tmp_path).corpus)
    assert isinstance(found, File)
    assert found.source.endswith("caf\\xe9.txt")
    assert found.path.read_text() == "x"
    source_fingerprint(settings_for(tmp_path).corpus)


def test_a_folder_that_cannot_be_opened_is_named_and_the_rest_is_read(tmp_path, monkeypatch):
    root = make(tmp_path, "closed/a.txt", "open/b.txt")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(files.os, "scandir", scandir)
    found = list(walk(settings_for(root).corpus))
    assert found[0] == Skipped(str(root / "closed"), "unreadable", True, "Permission denied")
    assert [f.source for f in found[1:]] == [str(root / "open/b.txt")]


def test_missing_sources_are_all_named(tmp_path):
    with pytest.raises(UserError) as caught:
        list(walk(settings_for(tmp_path, tmp_path / "gone", tmp_path / "lost.txt").corpus))
    assert str(tmp_path / "gone") in caught.value.why
    assert str(tmp_path / "lost.txt") in caught.value.why


def test_no_source_is_an_error():
    with pytest.raises(UserError, match="no source is set"):
        list(walk(settings_for().corpus))


def test_fingerprint_changes_with_files_and_settings_only(tmp_path):
    root = make(tmp_path / "s", "a.txt", "b/c.txt")
    other = make(tmp_path / "t", "d.txt")

    def fingerprint(*sources, **choices):
        return source_fingerprint(settings_for(*(sources or (root, other)), **choices).corpus)

    first = fingerprint()
    assert first == fingerprint() == fingerprint(other, root)
    seen = [first, fingerprint(root), fingerprint(held_out=0.1), fingerprint(section_bytes=2048)]
    seen.append(fingerprint(exclude=["b"]))
    os.utime(root / "a.txt", ns=(1, 1))  # same size, other time
    seen.append(fingerprint())
    (root / "b/c.txt").write_text("longer than it was before")
    os.utime(root / "b/c.txt", ns=(1, 1))
    seen.append(fingerprint())
    (root / "b/c.txt").rename(root / "b/e.txt")
    seen.append(fingerprint())
    (root / "new.txt").touch()
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_fingerprint_of_many_files_is_quick(tmp_path):
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(100):
            (tmp_path / str(folder) / f"{number}.txt").touch()
    started = time.perf_counter()
    source_fingerprint(settings_for(tmp_path).corpus)
    assert time.perf_counter() - started < 1  # 2,000 files; 10,000 take 0.15 s on a laptop's disk
