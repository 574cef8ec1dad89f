"""crystalline: your documents become a language model of your own, on the computer you have.

The public surface is the names in `__all__`; they are loaded when first used, so that importing the package
(and `cllm --help`) stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "new": "crystalline.pipeline.runner",
    "plan": "crystalline.pipeline.runner",
    "run": "crystalline.pipeline.runner",
    "train": "crystalline.pipeline.runner",
    "evaluate": "crystalline.pipeline.runner",
    "load": "crystalline.model.generation",
    "UserError": "crystalline.errors",
}
__all__ = ["UserError", "evaluate", "load", "new", "plan", "run", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'crystalline' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
