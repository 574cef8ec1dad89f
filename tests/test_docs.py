"""The documents are true: commands run, links lead somewhere, generated pages are as the code says."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crystalline import settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Small enough that every documented command is done in seconds.
TINY = {
    "CLLM_MODEL_LAYERS": "1", "CLLM_MODEL_WIDTH": "32", "CLLM_MODEL_HEADS": "2", "CLLM_MODEL_CONTEXT": "32",
    "CLLM_TRAINING_STEPS": "3", "CLLM_TRAINING_MICRO_BATCH": "1", "CLLM_TOKENIZER_VOCABULARY_SIZE": "400",
    "CLLM_TRAINING_EVALUATE_TOKENS": "256", "QUICKSTART_MINUTES": "0.01",
}  # fmt: skip


def blocks(language: str) -> list:
    found = []
    for page in PAGES:
        for number, code in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)):
            found.append(pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A copy of the repository with this interpreter's environment, and a home with documents."""
    place = tmp_path_factory.mktemp("docs")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    documents = place / "home" / "Documents"
    documents.mkdir(parents=True)
    for file in sorted((ROOT / "src").rglob("*.py"))[:20]:
        shutil.copy(file, documents / f"{file.parent.name}-{file.stem}.txt")
    venv = place / "venv" / "bin"
    venv.mkdir(parents=True)
    for name in ("python", "cllm", "torchrun"):
        (venv / name).symlink_to(Path(sys.executable).parent / name)
    (venv / "activate").touch()
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", place / "venv")
    (place / "venv" / "lib").symlink_to(Path(sys.prefix) / "lib")
    stamp = subprocess.run(
        "cat pyproject.toml constraints.txt | sha256sum", shell=True, cwd=place, capture_output=True
    )
    for extra in ("", "-dev"):
        (place / "venv" / f".installed{extra}").write_bytes(stamp.stdout)
    # pytest inside of pytest would run this test again; what script/test calls is replaced, the script is real.
    for name in ("ruff", "mypy"):
        (venv / name).write_text("#!/bin/sh\nexit 0\n")
        (venv / name).chmod(0o755)
    return place


def run(code: str, place: Path) -> subprocess.CompletedProcess:
    env = {
        **os.environ, **TINY, "HOME": str(place / "home"), "CLLM_VENV": str(place / "venv"),
        "PATH": f"{place / 'venv' / 'bin'}:{os.environ['PATH']}", "PYTEST_ADDOPTS": "--collect-only -q",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], cwd=place, env=env, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize("code", blocks("bash"))
def test_every_command_block_runs(code, place):
    done = run(code, place)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("code", blocks("python"))
def test_every_python_block_runs(code, place):
    shutil.rmtree(place / "my-model", ignore_errors=True)
    code = code.replace('["~/Documents"]', f'["{place / "home" / "Documents"}"]')
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env={**os.environ, **TINY}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in PAGES])
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_guarantee_has_its_tests():
    """Each test that docs/reliability.md names is there; `::name` belongs to the file named before it."""
    file, named = "", 0
    for path, name in re.findall(r"`(tests/[\w/]+\.py)?::(\w+)`", (ROOT / "docs/reliability.md").read_text()):
        file, named = path or file, named + 1
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"
    assert named > 40


def test_the_readme_tree_is_the_tree():
    """Each path in the README's file tree exists, and each folder of the package is in it."""
    tree = re.search(r"## The code\n.*?```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    stack: list[tuple[int, str]] = []
    named = set()
    for line in tree.splitlines():
        if not line.strip():
            continue
        indent, entry = len(line) - len(line.lstrip()), line.split()[0]
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, entry))
        path = "/".join(part.rstrip("/") for _, part in stack)
        named.add(path)
        assert (ROOT / path).exists(), f"the README names {path}"
    rooms = [p for p in (ROOT / "src/crystalline").iterdir() if (p / "__init__.py").exists()]
    modules = [p for p in (ROOT / "src/crystalline").glob("*.py") if p.name != "__init__.py"]
    for path in rooms + modules:
        assert str(path.relative_to(ROOT)) in named, f"the README does not name {path.relative_to(ROOT)}"


def test_the_reading_order_exists():
    text = re.search(
        r"[Rr]ead the code in this order(.*?)\n\n", (ROOT / "README.md").read_text() + "\n\n", re.S
    ).group(1)
    paths = re.findall(r"`([\w/]+)`", text)
    assert len(paths) >= 6
    for path in paths:
        assert (ROOT / "src/crystalline" / f"{path}.py").exists(), path


def test_the_settings_page_is_generated_from_the_code():
    assert (ROOT / "docs/settings.md").read_text() == settings.reference(), (
        "regenerate it: python -m crystalline.settings > docs/settings.md"
    )


def test_the_commands_page_names_every_verb_and_exit_code():
    from crystalline import errors
    from crystalline.cli.main import VERBS

    page = (ROOT / "docs/commands.md").read_text()
    for verb in VERBS:
        assert f"`cllm {verb} " in page or f"`cllm {verb}`" in page, verb
    for name, code in vars(errors).items():
        if name.startswith("EXIT_"):
            assert f"| {code} |" in page, name
