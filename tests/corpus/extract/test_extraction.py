"""The child process that reads files: what it survives, and that results never change."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import made_pdfs
import pytest
from made_files import DE, RTF, docx, eml, epub, odt, only, pptx, results, xlsx, zipped
from test_containers import tarred

from crystalline.corpus.extract import child
from crystalline.corpus.extract.extraction import Extracted, Raw, extract
from crystalline.settings import Extract

PAGE = f"<!DOCTYPE html><html><body><article><h1>x</h1>{''.join(f'<p>{p}</p>' for p in DE.paragraphs)}</article></body></html>"


def pdf():
    return made_pdfs.document([(False, paragraph) for paragraph in DE.paragraphs])


def notebook():
    return json.dumps({"cells": [{"cell_type": "markdown", "source": DE.paragraphs[0]}]}).encode()


def picture():
    import io

    data = io.BytesIO()
    made_pdfs.pictures(made_pdfs.by_hand(["Words in a picture"]), dpi=72)[0].crop((0, 50, 300, 150)).save(data, "PNG")
    return data.getvalue()


MADE = {
    "a.pdf": pdf, "a.docx": docx, "a.xlsx": xlsx, "a.pptx": pptx, "a.odt": odt, "a.epub": epub, "a.eml": eml,
    "a.html": PAGE.encode, "a.rtf": lambda: RTF, "a.ipynb": notebook, "a.png": picture,
    "a.json": lambda: json.dumps(DE.paragraphs).encode(), "a.tar.gz": lambda: tarred({"a.txt": PAGE.encode()}, "w:gz"),
    "a.zip": lambda: zipped({"a.pdf": pdf(), "b.txt": DE.paragraphs[0]}),
}  # fmt: skip


@pytest.fixture
def processes(monkeypatch):
    """The ids of the children that are started, with none that was there before."""
    child.close()
    started = []
    real = child._Child.__init__

    def begin(self):
        real(self)
        started.append(self.process.pid)

    monkeypatch.setattr(child._Child, "__init__", begin)
    return started


@pytest.mark.parametrize("name", MADE)
def test_every_format_by_content_alone_and_always_the_same(name):
    data = MADE[name]()
    first = results(data, name)
    assert all(text and not text.startswith("!") for _, text in first)
    child.close()
    assert results(data, name) == first
    if name not in ("a.json", "a.ipynb"):  # which are text, so their names count
        assert [text for _, text in results(data, "other")] == [text for _, text in first]


@pytest.mark.parametrize("name", MADE)
def test_broken_files_are_skipped_with_a_reason_and_named(name):
    data = MADE[name]()
    source = random.Random(name)
    broken = [data[: len(data) * part // 8] for part in range(8)]
    for _ in range(12):
        changed = bytearray(data)
        for _ in range(source.choice([1, 5, 50])):
            changed[source.randrange(len(changed))] = source.randrange(256)
        broken.append(bytes(changed))
    for one in broken:
        settings = Extract(ocr="never" if name != "a.png" else "auto", seconds=20)
        for found in extract(Raw(name, data=one), settings):
            assert found.source.startswith(name)
            if isinstance(found, Extracted):
                "".join(found.text).encode("utf-8")
            else:
                assert found.reason in (
                    "broken", "no text", "binary", "undecodable", "encrypted", "unknown format", "archive bomb", "too large",
                    "link", "special file", "not entered", "hidden", "needs OCR", "nested too deeply",
                ), found  # fmt: skip
                assert "object at 0x" not in found.detail


def test_one_child_reads_file_after_file(processes):
    for name in ("a.html", "a.docx", "a.zip", "a.pdf"):
        results(MADE[name](), name)
    assert len(processes) == 1


def test_extractions_that_overlap_do_not_meet(processes):
    archive = zipped({f"{n}.html": PAGE.replace("<h1>x", f"<h1>number {n}") for n in range(3)})
    together = [extract(Raw(f"{n}.zip", data=archive), Extract()) for n in range(2)]
    texts = [["".join(next(one).text) for one in together] for _ in range(3)]
    assert [pair[0] == pair[1] and f"number {n}" in pair[0] for n, pair in enumerate(texts)] == [True] * 3
    for one in together:
        assert list(one) == []
    assert len(processes) == 2


def test_who_stops_listening_gets_a_new_child(processes):
    some = extract(Raw("a.zip", data=MADE["a.zip"]()), Extract())
    next(some)
    some.close()
    assert only(PAGE.encode(), "a.html").text
    assert len(processes) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)


@pytest.mark.parametrize(
    ("killed_by", "reason"),
    [(signal.SIGSEGV, "broken"), (signal.SIGKILL, "too much memory"), (signal.SIGABRT, "broken")],
)
def test_a_child_that_dies_costs_one_file_only(processes, killed_by, reason):
    slow = made_pdfs.scanned(pdf(), dpi=200)
    archive = zipped({"a.txt": "first", "b.pdf": slow, "c.txt": "last"})
    found = []
    for one in extract(Raw("a.zip", data=archive), Extract(languages="eng")):
        found.append((one.source, "".join(one.text) if isinstance(one, Extracted) else one.reason))
        if len(found) == 1:
            time.sleep(0.2)  # it begins to recognise, which takes more than a second
            os.kill(processes[0], killed_by)
    assert found == [("a.zip!a.txt", "first"), ("a.zip!b.pdf", reason), ("a.zip!c.txt", "last")]


def test_memory_is_limited():
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (9_900, 9_900), "white").save(data, "PNG")
    archive = zipped({"a.png": data.getvalue(), "b.txt": "last"})
    found = results(archive, "a.zip", memory_mb=512)
    assert found[0][1] in ("!too much memory", "!broken")
    assert found[1] == ("a.zip!b.txt", "last")


def test_unpacking_that_takes_too_long_gives_the_archive_up():
    archive = zipped({"a.txt": "first", "b.txt": b"".join(random.Random(1).randbytes(1 << 20) for _ in range(40))})
    assert results(archive, "a.zip", seconds=0.05)[-1][1] == "!too slow"


def test_a_fork_has_a_child_of_its_own(processes):
    assert only(PAGE.encode(), "a.html").text
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if only(PAGE.encode(), "a.html").text and len(processes) == 2 else 2
            child.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert only(PAGE.encode(), "a.html").text
    assert len(processes) == 1


def test_the_child_ends_with_its_parent():
    script = (
        "from crystalline.corpus.extract import child\n"
        "from crystalline.corpus.extract.extraction import Raw, extract\n"
        "from crystalline.settings import Extract\n"
        "list(extract(Raw('a.html', data=b'<html><p>x</p></html>'), Extract()))\n"
        "print(child._idle[0].process.pid, flush=True)\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with open(f"/proc/{int(done.stdout)}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return  # ended; whoever adopts it has not looked yet
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.05)
    pytest.fail("it is still there")


def test_the_child_reaches_nothing():
    """The hook that refuses is real: set it in a process, and try."""
    script = (
        "import os, socket, subprocess, sys, tempfile\n"
        "from crystalline.corpus.extract import worker\n"
        "place = tempfile.gettempdir()\n"
        "sys.addaudithook(worker._refuse)\n"
        "def refused(do):\n"
        "    try:\n        do()\n"
        "    except PermissionError:\n        return True\n"
        "    return False\n"
        "tried = [lambda: socket.create_connection(('127.0.0.1', 9)), lambda: subprocess.run(['true']), os.fork,\n"
        "         lambda: open('x', 'w'), lambda: os.mkdir('x'), lambda: os.remove('y'), lambda: os.system('true')]\n"
        "print([refused(do) for do in tried], refused(lambda: tempfile.TemporaryFile().write(b'x')), open('y').read())\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    import tempfile

    with tempfile.TemporaryDirectory(dir=os.path.expanduser("~")) as folder:
        with open(f"{folder}/y", "w") as file:
            file.write("still here")
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=folder
        )
        assert done.stdout.strip() == f"{[True] * 7} False still here", done.stderr
        assert os.listdir(folder) == ["y"]


def test_a_hundred_pages_take_few_seconds(processes):
    """Kept warm: no process is started for a page."""
    begun = time.process_time()
    for number in range(100):
        assert only(PAGE.encode(), f"https://example.org/{number}").text
    assert len(processes) == 1
    assert time.process_time() - begun < 5  # of this process, which only hands pages over
