"""What tests of several rooms share: a little text, and a run trained on it in a moment."""

import os
import shutil
import signal
import sysconfig
from pathlib import Path

import pytest

from commands import Command
from crystalline.cli.main import main
from made_up import MadeUpRun

# A shell that starts tests in the background has them ignore Ctrl-C, which some of them press.
signal.signal(signal.SIGINT, signal.default_int_handler)

LIBRARY = Path(sysconfig.get_paths()["stdlib"])

# Sources of the standard library: real text that is there wherever the tests run.
TEXT = ("textwrap.py", "string.py", "bisect.py", "heapq.py")

# A network of 40,000 weights; 6 steps take about a tenth of a second.
TINY = {
    "tokenizer.vocabulary_size": 400,
    "model.layers": 2,
    "model.width": 32,
    "model.heads": 2,
    "model.context": 32,
    "training.micro_batch": 1,
    "training.steps": 6,
    "training.device": "cpu",
    "training.precision": "fp32",
    "training.evaluate_tokens": 256,
    "checkpointing.every_steps": 2,
}


@pytest.fixture(autouse=True, scope="session")
def _own_environment():
    """No setting of the person who runs the tests changes what they measure."""
    for name in list(os.environ):
        if name.startswith("CLLM_") or name in ("PYTHONUNBUFFERED", "PYTHONIOENCODING"):
            del os.environ[name]


@pytest.fixture(scope="session")
def tiny_settings():
    """Overrides ("section.key" -> value) for a run that takes a moment."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    """A folder with about 60 kB of text."""
    folder = tmp_path_factory.mktemp("text") / "source"
    folder.mkdir()
    for name in TEXT:
        shutil.copy(LIBRARY / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_new(tiny_text, tiny_settings, tmp_path_factory):
    """A run folder made by `cllm new`, with nothing done yet. Do not change it: copy it."""
    return make_new(tmp_path_factory.mktemp("new") / "run", tiny_text, tiny_settings)


@pytest.fixture(scope="session")
def tiny_run(tiny_new, tmp_path_factory):
    """A finished run folder, trained for 6 steps, with checkpoints of steps 2, 4 and 6. Do not change it: copy it."""
    root = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(tiny_new, root)
    with Command("run", root, "--quiet", folder=root.parent) as command:
        result = command.wait()
    assert result.code == 0, result.err
    return root


@pytest.fixture
def new_run(tiny_new, tmp_path):
    """A run of one's own with nothing done yet."""
    return Path(shutil.copytree(tiny_new, tmp_path / "new"))


@pytest.fixture
def run(tiny_run, tmp_path):
    """A finished run of one's own."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def made_up(tmp_path):
    """A run whose events the test writes."""
    return MadeUpRun(tmp_path / "made-up")


@pytest.fixture
def cllm(capsys):
    """Runs a command inside the test's process: `code, out, err = cllm("hash", run)`."""

    def call(*words):
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as ended:  # argparse, after --help
            code = ended.code
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def start(tmp_path):
    """Starts a command as a process of its own: `with start("run", run) as command: ... command.wait()`."""
    return lambda *words, **options: Command(*words, folder=tmp_path, **options)


def make_new(root, text, settings):
    """`cllm new ROOT --from TEXT` with settings."""
    flags = [f"--set={name}={value}" for name, value in settings.items()]
    assert main(["new", str(root), "--from", str(text), "--quiet", *flags]) == 0
    return root
