"""The picture in the design holds: who may import whom, where torch lives, and that the code explains itself."""

import ast
from pathlib import Path

import pytest

import crystalline

SOURCE = Path(crystalline.__file__).parent
FOUNDATION = {"errors", "events", "processes", "run_folder", "settings"}

# A room may import rooms that stand lower. Rooms in one line never import each other.
FLOORS = [
    {"__main__"},
    {"cli", "studio"},
    {"pipeline", "operation"},  # both look after whole runs
    {"corpus", "training", "evaluation", "serving", "export"},
    {"model"},
    {"tokens"},
    {"lattice"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITH_TORCH = {"model", "training", "evaluation", "serving", "export", "operation"}
# Modules that reach outside of the process.
OUTSIDE = {
    *("asyncio", "fcntl", "fileinput", "ftplib", "glob", "http", "io", "mmap", "multiprocessing", "os", "pathlib"),
    *(
        "requests",
        "shutil",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "urllib",
    ),
}

FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path.relative_to(SOURCE): ast.parse(path.read_text("utf-8")) for path in FILES}


def imports(path, tree):
    """(line, full name of a module or of what is taken from it) of every import, also inside functions."""
    package = ["crystalline", *path.parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room(path):
    return path.parts[0] if len(path.parts) > 1 else path.stem


def forbidden(path, tree):
    """What `path` may not import: "file:line: what"."""
    mine = room(path)
    for line, name in imports(path, tree):
        top, *rest = name.split(".")
        where = f"{path}:{line}: {name}"
        if top == "torch" and mine not in WITH_TORCH:
            yield f"{where} (no torch here)"
        if mine == "lattice" and top in OUTSIDE:
            yield f"{where} (no files or network here)"
        if top != "crystalline" or mine == "__init__":
            continue
        theirs = rest[0] if rest else ""
        if theirs in FOUNDATION or theirs == mine or theirs == "__version__":
            continue
        if mine in FOUNDATION:
            yield f"{where} (the foundations stand on nothing)"
        elif theirs in FLOOR and FLOOR[theirs] <= FLOOR[mine]:
            yield f"{where} ({mine} does not stand above {theirs})"
        elif theirs not in FLOOR and not hasattr(crystalline, theirs):
            yield f"{where} (not a room)"


def test_imports_follow_the_arrows():
    assert [problem for path, tree in TREES.items() for problem in forbidden(path, tree)] == []


def test_every_room_has_its_floor():
    assert {room(path) for path in TREES} <= FLOOR.keys() | FOUNDATION | {"__init__"}


@pytest.mark.parametrize(
    ("path", "code", "found"),
    [
        ("corpus/x.py", "from crystalline.training import loop", True),
        ("corpus/x.py", "from ..training import loop", True),
        ("corpus/x.py", "from .. import training", True),
        ("corpus/x.py", "def f():\n    import crystalline.pipeline.runner", True),
        ("corpus/x.py", "from crystalline import tokens", False),
        ("tokens/x.py", "import torch.nn", True),
        ("model/x.py", "from torch import nn", False),
        ("lattice/x.py", "from os import path", True),
        ("lattice/x.py", "import math", False),
        ("settings.py", "from crystalline.model import shape", True),
        ("pipeline/x.py", "from crystalline.cli import output", True),
        ("cli/x.py", "from crystalline.model.generation import load", False),
    ],
)
def test_the_check_itself_sees_what_is_wrong(path, code, found):
    assert bool(list(forbidden(Path(path), ast.parse(code)))) == found


def test_every_module_says_what_it_is():
    assert [str(path) for path, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_public_function_is_typed():
    untyped = []
    for path, tree in TREES.items():
        for owner in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
                    missing = [a.arg for a in every if a.annotation is None and a.arg not in ("self", "cls")]
                    if missing or node.returns is None:
                        untyped.append(f"{path}:{node.lineno}: {node.name} ({', '.join(missing) or 'its result'})")
    assert untyped == []


def test_the_public_names_are_there():
    for name in crystalline.__all__:
        assert getattr(crystalline, name) is not None
    assert len(crystalline.__all__) <= 10
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        crystalline.nothing  # noqa: B018
