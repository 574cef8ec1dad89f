"""The doctor tells what is well and what is not, and never fails itself."""

import builtins
import importlib
import json
import shutil
import sys
from collections import namedtuple

import pytest

from crystalline.errors import EXIT_FAILED, EXIT_OK
from crystalline.operation import doctor


def findings():
    return {finding.subject: finding for finding in doctor.examine()}


def test_it_looks_at_everything(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(50e9))
    found = findings()
    expected = {"python", "precision", "gpu", "kernels", "ocr", "cores", "memory", "disk", "writing"}
    expected |= set(doctor.LIBRARIES)
    assert found.keys() == expected
    assert all(finding.ok for finding in found.values())
    assert found["torch"].found == importlib.import_module("torch").__version__


def test_every_dependency_is_looked_at():
    from importlib import metadata

    wanted = {
        line.split(">")[0].split("=")[0].strip()
        for line in metadata.requires("crystalline")
        if "extra ==" not in line
    }  # fmt: skip
    assert wanted == set(doctor.LIBRARIES)


@pytest.mark.parametrize(
    ("free", "ok"),
    [(1e9, False), (3e9, True)],
)
def test_little_disk_is_told_with_its_fix(monkeypatch, free, ok):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(free))
    disk = findings()["disk"]
    assert disk.ok == ok
    assert bool(disk.advice) != ok


def test_a_folder_that_cannot_be_written_is_told(monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    assert not findings()["writing"].ok


@pytest.mark.parametrize("broken", ["torch", "safetensors"])
def test_a_library_that_does_not_load_is_told_and_the_rest_is_still_looked_at(monkeypatch, cllm, broken):
    """As with a missing shared library: the import fails, also that of every module of ours that needs it."""
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.split(".")[0] == broken:
            raise ImportError(f"lib{broken}.so: cannot open shared object file")
        return real(name, *arguments, **options)

    for name in list(sys.modules):
        if name.split(".")[0] == broken or name.startswith(("crystalline.training", "crystalline.model")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    real_import_module = importlib.import_module
    monkeypatch.setattr(
        doctor.importlib, "import_module", lambda name: refuse(name) if name == broken else real_import_module(name)
    )
    code, out, err = cllm("doctor", "--json")
    assert code == EXIT_FAILED, err
    told = {entry["subject"]: entry for entry in json.loads(out)}
    assert not told[broken]["ok"]
    assert f"lib{broken}.so" in told[broken]["found"]
    assert "pip install" in told[broken]["advice"]
    assert told["writing"]["ok"]


def test_the_command_ends_with_what_it_found(cllm, monkeypatch):
    good, bad = doctor.Finding("disk", True, "50 GB"), doctor.Finding("disk", False, "1 GB", "free some")
    monkeypatch.setattr(doctor, "examine", lambda: [good])
    assert cllm("doctor") == (EXIT_OK, "ok   disk         50 GB\n", "")
    monkeypatch.setattr(doctor, "examine", lambda: [good, bad])
    code, out, _ = cllm("doctor")
    assert code == EXIT_FAILED
    assert "BAD  disk         1 GB\n" in out
    assert "fix: free some" in out


def test_a_missing_compiler_is_named_with_its_fix(monkeypatch):
    from crystalline.model import library
    from crystalline.operation import doctor

    assert doctor._kernels().ok
    monkeypatch.setattr(library, "library", lambda: None)
    finding = doctor._kernels()
    assert finding.ok, "it works, only slower"
    assert "compiler" in finding.advice


def test_gpus_are_told(monkeypatch):
    from crystalline.training import device

    found = [device.Gpu(index, "H100", 80_000_000_000, (9, 0)) for index in range(2)]
    monkeypatch.setattr(device, "gpus", lambda: found)
    assert findings()["gpu"].found == "2 of H100 (9.0), 80 GB each, bf16 products"


@pytest.mark.parametrize("driver", [True, False])
def test_a_gpu_that_pytorch_does_not_find_is_told_with_its_fix(driver, monkeypatch, tmp_path):
    from crystalline.training import device

    (tmp_path / "version").write_text("NVRM version: 580")
    monkeypatch.setattr(device, "gpus", lambda: [])
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / ("version" if driver else "none"))
    gpu = findings()["gpu"]
    assert gpu.ok, "training is possible all the same"
    assert ("CUDA build" in gpu.advice) == driver
