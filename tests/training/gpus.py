"""Machines whose GPUs are made up."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from crystalline.training import device

T4, A100, H100 = ("T4", (7, 5)), ("A100", (8, 0)), ("H100", (9, 0))


@contextmanager
def machine_with(*kinds, looking=None):
    """Have PyTorch find these GPUs. looking: called before it does."""

    def count():
        if looking is not None:
            looking()
        return len(kinds)

    def properties(index):
        name, (major, minor) = kinds[index]
        return SimpleNamespace(name=name, total_memory=80_000_000_000, major=major, minor=minor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cuda, "is_built", lambda: True)
        patch.setattr(torch.cuda, "device_count", count)
        patch.setattr(torch.cuda, "get_device_properties", properties)
        device._gpus.cache_clear()
        yield
    device._gpus.cache_clear()
