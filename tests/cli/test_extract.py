"""`cllm extract`: what it prints, writes and refuses."""

import json

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE

PAGE = (
    "<html lang=en><head><title>The ferry</title></head><body><nav><a href=/>Home</a></nav><article><p>{}</p>"
    "</article></body></html>"
)
WORDS = "Before the bridge was built, a ferry crossed the river every half hour between sunrise and dusk. " * 3


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "documents"
    root.mkdir()
    (root / "page.html").write_text(PAGE.format(WORDS))
    (root / "table.csv").write_text("a,b\n1,2\n")
    (root / "code.py").write_text("print('hello')\n")
    (root / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (root / "song.mp3").touch()
    return root


def test_a_folder_is_counted_by_format_and_reason(folder, cllm):
    code, out, _ = cllm("extract", folder)
    assert code == EXIT_OK
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"3 documents, {len(WORDS.strip()) + 8 + 15} B of text"
    assert {"html prose 1 290 B", "csv table 1 8 B", "text code 1 15 B"} <= set(lines)
    assert "skipped, broken: 1 file" in lines
    assert "skipped, binary: 1 file" in lines
    assert any(line.startswith(f"{folder / 'broken.pdf'}: PdfiumError") for line in lines)


def test_show_prints_text_and_metadata(folder, cllm):
    code, out, _ = cllm("extract", folder / "page.html", "--show")
    assert code == EXIT_OK
    assert WORDS.strip() in out
    assert "title      The ferry" in out
    assert "Home" not in out
    _, out, _ = cllm("extract", folder / "page.html", "--show", "--everything")
    assert "Home" in out


def test_json_holds_all_of_it(folder, cllm):
    code, out, _ = cllm("extract", folder, "--json")
    told = json.loads(out)
    assert code == EXIT_OK
    assert [entry["source"] for entry in told["documents"]] == [
        str(folder / name) for name in ("code.py", "page.html", "table.csv")
    ]
    assert "text" not in told["documents"][0]
    assert {entry["skipped"] for entry in told["skipped"]} == {"broken", "binary"}
    _, out, _ = cllm("extract", folder / "table.csv", "--json", "--show")
    assert json.loads(out)["documents"][0]["text"] == "a\tb\n1\t2\n"


def test_out_writes_a_file_for_each_and_an_index(folder, cllm, tmp_path):
    out = tmp_path / "texts"
    code, _, _ = cllm("extract", folder, "--out", out)
    assert code == EXIT_OK
    index = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    files = {entry["source"]: (out / entry["file"]).read_text() for entry in index if "file" in entry}
    assert files[str(folder / "table.csv")] == "a\tb\n1\t2\n"
    assert len(list(out.iterdir())) == 4
    assert sum("skipped" in entry for entry in index) == 2
    code, _, err = cllm("extract", folder, "--out", out)
    assert code == EXIT_FAILED
    assert "it is not empty" in err


def test_names_of_members_do_not_leave_the_folder(cllm, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../../evil.txt", "/etc/evil.txt", "x" * 300 + ".txt", "ä" * 200):
            archive.writestr(name, f"text in {name[:20]}")
    code, _, _ = cllm("extract", tmp_path / "a.zip", "--out", tmp_path / "out")
    assert code == EXIT_OK
    assert len(list((tmp_path / "out").iterdir())) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_nothing_to_read_is_a_failure_that_says_why(folder, cllm):
    code, out, _ = cllm("extract", folder / "broken.pdf")
    assert code == EXIT_FAILED
    assert "skipped, broken: 1 file" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pages", "five"], "extract.pages"),
        (["--dpi", "9999"], "extract.dpi"),
        (["--ocr", "sometimes"], "sometimes"),
        (["--set", "extract.second=5"], "did you mean 'seconds'?"),
        (["--languages", "e n g"], "extract.languages"),
    ],
)
def test_wrong_flags_are_told(folder, cllm, flags, words):
    code, _, err = cllm("extract", folder, *flags)
    assert code == EXIT_USAGE
    assert words in err


def test_a_language_that_is_not_installed_names_its_package(folder, cllm):
    code, _, err = cllm("extract", folder, "--languages", "tlh")
    assert code == EXIT_FAILED
    assert "tesseract-ocr-tlh" in err


def test_a_missing_path_is_named(cllm, tmp_path):
    code, _, err = cllm("extract", tmp_path / "gone")
    assert code == EXIT_FAILED
    assert "gone: no such file or folder" in err
