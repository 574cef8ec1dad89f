"""How the command line speaks: logging for messages, one shape for JSON, and numbers a person can read."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from crystalline.errors import EXIT_USAGE, UserError, suggest

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def start_logging(verbose: bool, quiet: bool) -> None:
    """Messages go to standard error, results to standard output. CLLM_LOG_LEVEL names a level; flags win."""
    level = os.environ.get("CLLM_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        raise UserError(
            f"CLLM_LOG_LEVEL={level} cannot be used", "it is no log level", suggest(level, LEVELS), EXIT_USAGE
        )
    level = "DEBUG" if verbose else "WARNING" if quiet else level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("crystalline")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False


def print_json(value: Any) -> None:
    """One JSON document on standard output, for scripts."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def count(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.4g}"


def size(bytes_: float) -> str:
    """1234567 -> '1.23 MB'."""
    return f"{count(bytes_)}B" if bytes_ >= 1000 else f"{bytes_:.0f} B"


def duration(seconds: float) -> str:
    """75 -> '1 min 15 s'."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
