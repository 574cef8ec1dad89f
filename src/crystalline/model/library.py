"""Compiles kernels.c and decode.c for this processor, each once and when it is needed, and loads them.

The results are kept in the user's cache folder under names made of the source, the compiler and the processor.
Without a C compiler, or with CLLM_KERNELS=0, there are none, and model/operations.py and model/decoder.py compute
with PyTorch instead: slower, and with other bits, which is why the recipe of a run says which it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
DECODING = Path(__file__).with_name("decode.c")  # no part of training, and so of no run's identity
# Not -ffast-math: it would let the compiler assume that there are no NaNs, and the guard lives on seeing them.
FLAGS = [
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-shared",
    "-fPIC",
]
DOUBLE_RESULT = (
    *("add_exact_bf16", "add_exact_fp32", "add_exact_rows_bf16", "add_exact_rows_fp32"),
    *("cross_entropy_bf16", "cross_entropy_fp32", "combine_exact"),
)
_SUFFIX = {torch.bfloat16: "bf16", torch.float32: "fp32"}

# Compilers for x86 use half of a 512-bit unit unless told to.
WIDE = ["-mprefer-vector-width=512"]


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had."""
    loaded = _load(SOURCE)
    for name in DOUBLE_RESULT if loaded is not None else ():
        getattr(loaded, name).restype = ctypes.c_double
    return loaded


@functools.cache
def decoding() -> ctypes.CDLL | None:
    """The compiled decode step, or None where it cannot be had."""
    loaded = _load(DECODING)
    if loaded is not None:
        address, number = ctypes.c_void_p, ctypes.c_int64
        loaded.take_block.restype = loaded.new_engine.restype = address
        loaded.slot_cache.restype = number
        for precision in ("fp32", "bf16", "int8"):
            decode = getattr(loaded, f"decode_{precision}")
            decode.argtypes, decode.restype = [address] * 6 + [number] * 2 + [address], None
    return loaded


def _load(source: Path) -> ctypes.CDLL | None:
    compiler = _compiler()
    if os.environ.get("CLLM_KERNELS") == "0" or not compiler:
        return None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return ctypes.CDLL(str(_compiled(compiler, source)))
    return None


def usable(x: Tensor, dtype: torch.dtype | None = None) -> ctypes.CDLL | None:
    """The kernels, if they can work on tensors like `x`, with results in `dtype` if that is another."""
    return library() if x.device.type == "cpu" and {x.dtype, dtype or x.dtype} <= _SUFFIX.keys() else None


def has_attention(kernels: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether attention is among the kernels: it needs a processor with bf16 dot products."""
    return dtype == torch.bfloat16 and hasattr(kernels, "attention_bf16")


def call(kernels: ctypes.CDLL, name: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> Any:
    """Call `name` for `dtype`. Tensors go by address (None: NULL) and must be contiguous; ints are C longs."""
    converted: list[Any] = []
    for argument in arguments:
        if argument is None:
            converted.append(ctypes.c_void_p())
        elif isinstance(argument, Tensor):
            assert argument.is_contiguous()
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            converted.append(ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_float(argument))
    return getattr(kernels, f"{name}_{_SUFFIX[dtype]}")(*converted)


def identity() -> str:
    """Source, compiler, flags and processor, which the bits of the kernels depend on, as a hash; "" without them."""
    return _key(_compiler()) if library() is not None else ""


def _compiler() -> str:
    """The path of a C compiler, "" when there is none."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), "")


def _flags() -> list[str]:
    return FLAGS + (WIDE if platform.machine() == "x86_64" else [])


@functools.cache
def _key(compiler: str, source: Path = SOURCE) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    return hashlib.sha256(source.read_bytes() + version + " ".join(_flags()).encode() + _processor()).hexdigest()[:16]


def _compiled(compiler: str, source: Path) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crystalline"
    target = folder / f"{source.stem}-{_key(compiler, source)}.so"
    if not target.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a home that cannot be written: compile for this process only
            target = Path(tempfile.mkdtemp()) / target.name
        part = target.with_suffix(f".{os.getpid()}.partial")
        subprocess.run(
            [compiler, *_flags(), str(source), "-o", str(part), "-lm", "-pthread"], capture_output=True, check=True
        )
        os.replace(part, target)
    return target


def _processor() -> bytes:
    """The instructions that -march=native may use."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_bytes().splitlines():
            if line.startswith((b"flags", b"Features")):
                return line
    return platform.processor().encode()
