"""`cllm train`: train, or go on training, with settings from flags."""

from __future__ import annotations

from crystalline.cli.run import add_arguments, run

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """example:
  cllm train my-model --size 4M --steps 2000 --seed 7
  cllm train my-model --set optimizer.name=adamw --set training.micro_batch=8"""
