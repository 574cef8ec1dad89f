"""Compiled code is named by what its bits depend on."""

import hashlib
import subprocess

import pytest

from crystalline.model import library

pytestmark = pytest.mark.skipif(library.library() is None, reason="there is no C compiler here")


def test_the_kernels_identity_is_that_of_their_own_source_and_flags(monkeypatch, tmp_path):
    """It is part of every run's identity: nothing about the decode step may change it."""
    compiler = library._compiler()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    flags = "-O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp-simd -shared -fPIC"
    flags += " -mprefer-vector-width=512" if library._flags() != library.FLAGS else ""
    known = library.SOURCE.read_bytes() + version + flags.encode() + library._processor()
    assert library.identity() == hashlib.sha256(known).hexdigest()[:16]
    other = tmp_path / "decode.c"
    other.write_bytes(library.DECODING.read_bytes() + b"\n")
    assert library._key(compiler, library.DECODING) != library._key(compiler, other)
    monkeypatch.setattr(library, "DECODING", other)
    assert library.identity() == hashlib.sha256(known).hexdigest()[:16]


def test_without_kernels_there_is_no_decode_step_either(monkeypatch):
    monkeypatch.setenv("CLLM_KERNELS", "0")
    assert library.decoding.__wrapped__() is None


def test_code_that_does_not_compile_is_as_if_there_were_no_compiler(monkeypatch, tmp_path):
    broken = tmp_path / "decode.c"
    broken.write_text("int decode_fp32(")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "DECODING", broken)
    assert library.decoding.__wrapped__() is None
    assert [path.suffix for path in (tmp_path / "cache/crystalline").iterdir()] == []
