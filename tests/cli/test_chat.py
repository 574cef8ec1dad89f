"""`cllm chat`: settings by slash commands, conversations kept and copied, and a terminal that does as it should."""

import contextlib
import fcntl
import io
import json
import os
import re
import signal
import sys
import termios
import threading
import time
from functools import partial

import pytest

from commands import wait_for
from crystalline.errors import EXIT_OK

# --- what is typed, without a terminal --------------------------------------------------------------------


@pytest.fixture
def chat(run, cllm, monkeypatch):
    """Types lines into `cllm chat`; what it prints and what it complains of."""

    def call(*lines, flags=()):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code, out, err = cllm("chat", run, "-n", "8", "--quiet", *flags)
        assert code == EXIT_OK, err
        return out, err

    return call


def turns(run, name="default"):
    lines = (run / "chats" / f"{name}.jsonl").read_text().splitlines()
    return [(turn["user"], turn["model"]) for turn in map(json.loads, lines) if "user" in turn]


def test_every_setting_has_a_command(chat):
    values = {
        "temperature": "0.25", "top_k": "7", "top_p": "0.5", "min_p": "0.01", "repetition_penalty": "1.5",
        "lattice": "9", "lattice_weights": "0.1 0.2 0.7", "seed": "11", "tokens": "3", "system": "a text",
        "precision": "int8",
    }  # fmt: skip
    out, err = chat(*(f"/{name} {value}" for name, value in values.items()), r"/stop \n", '/stop "a b"', "/settings")
    assert err == ""
    settings = out.split("\n", len(values) + 2)[-1]
    for name, value in values.items():
        assert f"{name}  {value}\n" in out
        assert re.search(rf"^{name} +{re.escape(value)}$", settings, re.M), name
    assert re.search(r'^stop +"\\n"  "a b"$', settings, re.M)
    set_, _ = chat(*(f"/set {name.replace('_', '-')} {value}" for name, value in values.items()), "/settings")
    assert re.search(r"^top_p +0.5$", set_, re.M)


def test_flags_are_where_settings_begin(chat):
    flags = ["--greedy", "--lattice", "4", "--stop", "x", "--seed", "3"]
    out, _ = chat("/temperature", "/lattice", "/stop", "/tokens", "/top_p", flags=flags)
    assert out == 'temperature  0.0\nlattice  4\nstop  "x"\ntokens  8\ntop_p  0.95\n\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/top_p 2", "top_p = 2.0"),
        ("/temperature warm", "no number"),
        ("/top_k 1.5", "whole number"),
        ("/tokens 0", "from 1 up"),
        ("/lattice_weights 1 2", "three numbers"),
        ("/lattice_weights 0 0 0", ""),
        ("/set speed 3", "no setting 'speed'"),
        ("/precision fp8", "fp32, bf16, int8"),
        ("/temprature 1", "did you mean 'temperature'"),
        ("/load nothing", "no conversation"),
        ("/save ../x", "cannot name"),
        ("/save", "cannot name"),
        ("/export", "no file"),
        ("/export /nowhere/at/all.txt", "write /nowhere"),
    ],
)
def test_a_mistake_is_told_and_the_chat_goes_on(chat, run, line, words):
    before, _ = chat("/settings")
    out, err = chat(line, "/settings", "hello")
    assert words in err
    if line != "/lattice_weights 0 0 0":  # counts only together with /lattice
        assert err
        assert before.split("conversation")[0] in out
    assert [user for user, _ in turns(run)] == ["hello"]


def test_bad_weights_are_refused_once_they_count(chat):
    out, err = chat("/lattice 5", "/lattice_weights 0 0 0", "/lattice_weights")
    assert "weights are numbers from 0 up" in err
    assert out.endswith("lattice_weights  0.5 0.3 0.2\n\n")


def test_an_answer_follows_settings_and_seed(chat, run, cllm):
    chat("/temperature 0", "import os", "/new", "import os", "/new", "/temperature 1.5", "/seed 4", "import os")
    (hot,) = turns(run)
    chat("/new", "/temperature 1.5", "/seed 4", "import os")
    assert turns(run) == [hot]
    chat("/new", "/temperature 0", "import os")
    assert turns(run) != [hot]
    told = json.loads(cllm("generate", run, "-p", "import os\n", "-n", "8", "--greedy", "--json")[1])
    assert turns(run)[0][1] == told["text"].split("\n\n")[0].lstrip("\n")


def test_retry_answers_again_with_the_next_seed(chat, run):
    flags = ("--temperature", "2")
    out, _ = chat("import os", "/retry", "/retry", "/seed", flags=flags)
    assert out.endswith("seed  2\n\n")
    ((line, answer),) = turns(run)
    assert line == "import os"
    chat("/new", "/seed 2", "import os", flags=flags)
    assert turns(run) == [("import os", answer)]
    chat("/new", "/seed 0", "import os", flags=flags)
    assert turns(run) != [("import os", answer)]
    assert "nothing to try again" in chat("/new", "/retry")[0]
    assert "the same answer" in chat("x", "/temperature 0", "/retry")[0]


def test_several_lines_between_quotation_marks(chat, run):
    chat('"""def f(x):', "    return 1", "", '/quit"""', '"""/help"""', '"""the end', "of the input")
    assert [line for line, _ in turns(run)] == ["def f(x):\n    return 1\n\n/quit", "/help", "the end\nof the input"]


def test_system_text_stands_first_and_is_kept(chat, run, monkeypatch):
    from crystalline.model.generation import LanguageModel

    asked = []
    real = LanguageModel.stream
    monkeypatch.setattr(LanguageModel, "stream", lambda self, p, *more: asked.append(p) or real(self, p, *more))
    chat("hello", flags=["--system", "On files."])
    out, _ = chat("/system", "/new", "again", "/system none", "and now")
    assert out.startswith("system  On files.\n")
    assert "system  none\n" in out
    (answer,) = [answer for line, answer in turns(run) if line == "again"]
    assert asked == ["On files.\n\nhello\n", "On files.\n\nagain\n", f"again\n\n{answer.strip()}\n\nand now\n"]


def test_copies_can_be_gone_on_with(chat, run):
    out, err = chat("one", "/save first", "two", "/save first", "/list", "/load first", "three", "/list")
    assert "there is a conversation of that name" in err
    assert "default  (this one)\nfirst\n" in out
    assert "default\nfirst  (this one)\n" in out
    assert [line for line, _ in turns(run)] == ["one", "two"]
    assert [line for line, _ in turns(run, "first")] == ["one", "three"]


def test_export(chat, run, tmp_path):
    chat(
        "one", "two", f"/export {tmp_path / 'talk.json'}", f"/export {tmp_path / 'talk.txt'}", flags=["--system", "S"]
    )
    told = json.loads((tmp_path / "talk.json").read_text())
    assert (told["name"], told["system"]) == ("default", "S")
    assert [(turn["user"], turn["model"]) for turn in told["turns"]] == turns(run)
    (_, one), (_, two) = turns(run)
    assert (tmp_path / "talk.txt").read_text() == f"S\n\n> one\n{one}\n\n> two\n{two}\n"


# --- in a terminal ----------------------------------------------------------------------------------------


def in_terminal(name, slowly):
    """Make the terminal called `name` that of this process, as a shell would."""
    os.setsid()
    descriptor = os.open(name, os.O_RDWR)
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(descriptor, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ["TERM"] = "xterm"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if slowly:
        from crystalline.pipeline.conversation import Conversation

        Conversation.answer = endless


def endless(*_):
    while True:
        yield "word "
        time.sleep(0.01)


@pytest.fixture
def terminal(run, start):
    """`cllm chat` in a terminal: `say(keys)`, `screen()`, `command`."""

    @contextlib.contextmanager
    def open_(*flags, slowly=False):
        master, slave = os.openpty()
        shown = bytearray()

        def listen():
            with contextlib.suppress(OSError):
                while data := os.read(master, 4096):
                    shown.extend(data)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        with start("chat", run, "-n", "8", *flags, before=partial(in_terminal, os.ttyname(slave), slowly)) as command:
            yield lambda keys: os.write(master, keys.encode()), lambda: shown.decode("utf-8", "replace"), command
        os.close(slave)
        listener.join(5)
        os.close(master)

    return open_


def test_ctrl_c_and_ctrl_d(terminal, run):
    with terminal(slowly=True) as (say, screen, command):
        wait_for(lambda: screen().endswith("> "))
        say("hello\r")
        wait_for(lambda: "word word" in screen())
        say("\x03")
        wait_for(lambda: screen().endswith("> ") and " tokens/s" in screen())
        (turn,) = turns(run)
        assert turn[0] == "hello"
        assert turn[1].startswith("word word ")
        say("half a li\x03")
        wait_for(lambda: "Ctrl-D" in screen() and screen().endswith("> "))
        say("\x04")
        assert command.wait().code == EXIT_OK
    assert turns(run) == [turn]


def test_speed_is_shown_and_lines_come_back(terminal, run):
    with terminal() as (say, screen, command):
        wait_for(lambda: screen().endswith("> "))
        say("import os\r")
        wait_for(lambda: re.search(r"\x1b\[2m\d+ tokens, [\d.]+( k)? tokens/s\x1b\[0m", screen()))
        wait_for(lambda: screen().endswith("> "))
        say("\x1b[A\r")  # the arrow upwards
        wait_for(lambda: len(turns(run)) == 2 and screen().endswith("> "))
        say("/sett\t\r")
        wait_for(lambda: "repetition_penalty" in screen() and screen().endswith("> "))
        say("\x04")
        assert command.wait().code == EXIT_OK
    assert [line for line, _ in turns(run)] == ["import os", "import os"]
    assert "import os" in (run / "chats" / ".history").read_text()
    with terminal() as (say, screen, command):  # and in the next chat
        wait_for(lambda: screen().endswith("> "))
        say("\x1b[A\x1b[A\r")
        wait_for(lambda: len(turns(run)) == 3 and screen().endswith("> "))
        say("\x04")
        command.wait()
    assert turns(run)[2][0] == "import os"
