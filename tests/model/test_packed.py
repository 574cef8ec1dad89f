"""A model in one file: whole, the same everywhere, damage found, nothing written where it should not be."""

import os
import random
import shutil
import subprocess
import sys
import zipfile

import pytest

from crystalline import UserError, load
from crystalline.errors import EXIT_DAMAGED
from crystalline.export.exporting import export
from crystalline.model import checkpoints, packed, store


@pytest.fixture(scope="module")
def file(tiny_run, tmp_path_factory):
    return export(tiny_run, "cllm", tmp_path_factory.mktemp("packed") / "tiny.cllm", license_="mit").path


def test_every_verb_that_takes_a_model_takes_it(cllm, file, tiny_run, tmp_path):
    same = ("generate", "-p", "def ", "-n", "12", "--temperature", "0")
    for words in (same, ("hash",), ("tokenize", "def f"), ("lattice", "token", "def")):
        verb, *rest = words
        here, there = (
            cllm(verb, *rest, "--run", model) if verb == "lattice" else cllm(verb, model, *rest)
            for model in (file, tiny_run)
        )
        assert here[0] == 0, here[2]
        assert here == there
    own, packed_ = cllm("eval", tiny_run, "--json"), cllm("eval", file, "--on", tiny_run, "--json")
    assert packed_[0] == 0, packed_[2]
    numbers = [[line for line in out[1].splitlines() if "checkpoint" not in line] for out in (own, packed_)]
    assert numbers[0] == numbers[1]
    assert cllm("eval", file)[0] == 2
    assert cllm("vocab", file)[0] == 0
    assert cllm("export", file, "--to", "gguf", "--out", tmp_path / "x.gguf")[0] == 0
    assert load(file).generate("x = ", max_tokens=4) == load(tiny_run).generate("x = ", max_tokens=4)


def test_any_zip_program_opens_it_and_what_comes_out_is_a_model(file, tmp_path):
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        archive.extractall(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "recipe.json", "tokenizer.json", "codes.json", "about.json", "SHA256SUMS",
    }  # fmt: skip
    assert checkpoints.find(tmp_path / "out") == tmp_path / "out"
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


def test_nothing_of_the_machine_is_in_it(file, tiny_run, tiny_text):
    for path in packed.unpack(file).iterdir():
        data = path.read_bytes()
        assert str(tiny_text).encode() not in data
        assert str(tiny_run).encode() not in data


def test_a_changed_byte_is_found_or_changes_nothing(file, tmp_path):
    whole, source = file.read_bytes(), random.Random(5)
    wanted = store.weights_hash(store.read_weights(packed.unpack(file)))
    places = [*range(60), *range(len(whole) - 700, len(whole), 3), *(source.randrange(len(whole)) for _ in range(60))]
    found = 0
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << source.randrange(8)
        (tmp_path / "bad.cllm").write_bytes(data)
        try:
            folder = packed.unpack(tmp_path / "bad.cllm")
        except UserError as error:
            found += "bad.cllm" in error.what
        else:
            assert store.weights_hash(store.read_weights(folder)) == wanted, place
            found += 1
            shutil.rmtree(folder)
    assert found == len(places)


@pytest.mark.parametrize("size", [0, 10, 5000, -1, -100])
def test_a_file_that_was_cut_off_is_told(file, tmp_path, size):
    (tmp_path / "cut.cllm").write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError) as error:
        load(tmp_path / "cut.cllm")
    assert error.value.exit_code == EXIT_DAMAGED


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", ".hidden", "..", "C:\\x", ""])
def test_no_name_leads_out_of_it(file, tmp_path, name):
    shutil.copy(file, tmp_path / "bad.cllm")
    with zipfile.ZipFile(tmp_path / "bad.cllm", "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(UserError, match="which no"):
        packed.unpack(tmp_path / "bad.cllm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.cllm"]


def test_what_is_compressed_or_not_listed_is_refused(file, tmp_path):
    shutil.copy(file, tmp_path / "bad.cllm")
    with zipfile.ZipFile(tmp_path / "bad.cllm", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.json", "0" * 10_000_000)
    with pytest.raises(UserError, match=r"more\.json is compressed"):
        packed.unpack(tmp_path / "bad.cllm")
    shutil.copy(file, tmp_path / "more.cllm")
    with zipfile.ZipFile(tmp_path / "more.cllm", "a") as archive:
        archive.writestr("tokenizer_config.json", "{}")
    with pytest.raises(UserError, match=r"tokenizer_config\.json has no checksum"):
        packed.unpack(tmp_path / "more.cllm")
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "less.cllm", "w") as new:
        for info in old.infolist():
            if info.filename != "codes.json":
                new.writestr(info, old.read(info))
    with pytest.raises(UserError, match=r"codes\.json is missing"):
        packed.unpack(tmp_path / "less.cllm")


def test_a_recipe_of_another_version_is_told(file, tmp_path):
    folder = packed.unpack(file)
    text = (folder / "recipe.json").read_text().replace('"norm_epsilon"', '"norm_of_tomorrow"')
    files = {path.name: path for path in folder.iterdir() if path.name not in ("SHA256SUMS", "recipe.json")}
    packed.pack(tmp_path / "new.cllm", {**files, "recipe.json": text.encode()})
    with pytest.raises(UserError, match="norm_of_tomorrow"):
        load(tmp_path / "new.cllm")


def test_what_was_unpacked_is_gone_when_the_process_ends(file, tmp_path):
    code = "import os, sys, pathlib; from crystalline.model import packed\n"
    code += "f = packed.unpack(pathlib.Path(sys.argv[1]))\n"
    code += "pid = os.fork()\nif pid: os.waitpid(pid, 0); assert f.exists(); print(f)\nelse: sys.exit()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, file], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
