"""What is told of the machine is measured, and measuring changes nothing of what is trained."""

import multiprocessing
import os
import random
import time

import numpy as np
import pytest
import torch

from crystalline.training import hardware

measure = hardware.matrix_peak.__wrapped__  # without the memory of earlier calls


def test_the_peak_is_the_rate_of_a_matrix_product():
    """Against a measurement of its own, with room for a busy machine."""
    a = torch.ones(768, 768)
    product = torch.empty_like(a)
    rates = []
    for _ in range(10):
        began = time.perf_counter()
        torch.mm(a, a, out=product)
        rates.append(2 * 768**3 / (time.perf_counter() - began))
    assert max(rates) / 4 < measure(torch.float32) < max(rates) * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measuring_draws_nothing_random_and_keeps_to_one_thread(dtype):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert measure(dtype, 0.05) > 1e8
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert torch.get_num_threads() == 1


def test_it_is_measured_even_without_time():
    assert measure(torch.float32, 0.0) > 0


def test_it_takes_no_longer_than_it_may(monkeypatch):
    """By a clock that goes as slowly as the slowest machine: a product takes a tenth of the time there is."""
    now = [0.0]

    def clock():
        now[0] += 0.02  # two looks at the clock a product, one before each
        return now[0]

    monkeypatch.setattr(time, "perf_counter", clock)
    measure(torch.float32, 0.4)
    assert now[0] < 0.5


def test_what_the_machine_is():
    found = hardware.describe()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["processor"]
    assert found["memory"] > 1e8


def test_memory_counts_what_processes_share_once():
    block = bytearray(os.urandom(1)) * 80_000_000  # its pages are there, and the child shares them
    alone = hardware.resident_memory()
    assert alone > 80e6
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: (theirs.send(len(block)), time.sleep(60)))
    child.start()
    try:
        assert ours.recv() == 80_000_000
        both = hardware.resident_memory()
    finally:
        child.kill()
        child.join()
    assert alone * 0.9 < both < alone + 60e6, "a second copy of the block would be 80 MB more"


def test_where_the_system_does_not_tell_nothing_is_made_up(monkeypatch):
    monkeypatch.setattr(hardware.load, "kernel_number", lambda *_: None)
    assert hardware.resident_memory() is None
    assert hardware.describe()["memory"] is None
