"""`cllm`: finds the verb, gives it the rest of the line, and turns failures into messages and exit codes.

A verb is a module of this folder with `add_arguments(parser)` and `run(args) -> exit code`. Only the verb that
was asked for is imported, and it imports what is heavy inside `run`, so that help is instant. A verb may have verbs
of its own beside its arguments (`cllm crawl URL`, `cllm crawl status`): its ACTIONS name their modules.
"""

from __future__ import annotations

import argparse
import importlib
import io
import keyword
import os
import signal
import sys
from types import ModuleType
from typing import NoReturn

from crystalline import __version__
from crystalline.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SYSTEM,
    EXIT_USAGE,
    Interrupted,
    UserError,
    from_os_error,
    is_out_of_memory,
    suggest,
)

# The verbs in the order in which a newcomer meets them: name -> one line of help.
VERBS = {
    "crawl": "fetch the pages of websites, politely; go on, or fetch what changed",
    "new": "make a run folder for a folder or file with text",
    "extract": "show or write the text in files of any format: PDF, scans, office documents, pages, mails, archives",
    "plan": "show what a run would take: parameters, memory, minutes, expected loss",
    "clean": "read and clean the text of a run, or try it on a folder: what is removed, and why",
    "trace": "name the source of a passage that the text of a run has",
    "forget": "leave a source out of the next text of a run",
    "tokenize": "cut a text into tokens, or put tokens together",
    "vocab": "look at a vocabulary, compare two, write one to a file",
    "run": "do whatever is missing, from text to trained model",
    "train": "train, or go on training, the model of a run",
    "eval": "measure a model on held-out text: cross-entropy and bits per byte",
    "generate": "continue a text",
    "chat": "talk to a model in the terminal",
    "export": "write a model for other programs: Hugging Face, llama.cpp (GGUF), or all of it in one file",
    "import": "make a run that starts from a model: a Hugging Face folder (Qwen3, Llama), or a .cllm file",
    "serve": "answer other programs over HTTP, in the language of OpenAI's API",
    "models": "list the models below a folder",
    "hash": "print the SHA-256 of a model's weights",
    "lattice": "prime codes, families, neighbours and a map of tokens; numbers",
    "status": "how far a run is, and what its workers do",
    "spheres": "draw the tree of workers and positions",
    "report": "make a page with the curves, settings and samples of a run",
    "pause": "hold a run that is training; its workers stay",
    "resume": "let a paused run go on",
    "stop": "save a run that is training and end it",
    "checkpoint": "save a run that is training now",
    "workers": "change the number of workers of a run that is training",
    "rebalance": "divide the work of an update anew among the workers of a run that is training",
    "doctor": "check this machine and installation",
}
EXIT_CODES = """exit codes:
  0 done    1 the input cannot be used    2 wrong flag or setting    3 the run folder is in use
  4 a file is damaged    5 disk, permission or memory    130 stopped by Ctrl-C (work is saved)"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors say what, why and the fix."""

    def error(self, message: str) -> NoReturn:
        valid = [text for action in self._actions for text in action.option_strings]
        if message.startswith("unrecognized arguments: -"):
            flag = message.split(": ", 1)[1].split()[0].split("=")[0]
            fix = f"{suggest(flag, valid)} (see {self.prog} --help)"
        else:
            fix = f"see {self.prog} --help"
        raise UserError(f"could not understand the command '{self.prog}'", message, fix, EXIT_USAGE)


def _overview() -> str:
    verbs = "\n".join(f"  {name:10} {text}" for name, text in VERBS.items())
    return f"""usage: cllm VERB ... [-v | -q]

Your documents become a language model of your own, on the computer you have.

{verbs}

first steps:
  cllm new my-model --from ~/Documents      make a run folder
  cllm run my-model --minutes 10            train
  cllm chat my-model                        talk to it

cllm VERB --help explains a verb, with an example.

{EXIT_CODES}"""


def _parser_of(verb: str, about: str, module: ModuleType) -> Parser:
    parser = Parser(
        prog=f"cllm {verb}",
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=f"{module.EXAMPLES}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    parser.add_argument("-q", "--quiet", action="store_true", help="only results and problems")
    module.add_arguments(parser)
    return parser


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return EXIT_OK
    if argv[0] in ("-V", "--version"):
        print(f"cllm {__version__}")
        return EXIT_OK
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise UserError(
            f"cllm has no verb '{verb}'", "it is not in the list", f"{suggest(verb, VERBS)} (see cllm --help)",
            EXIT_USAGE,
        )  # fmt: skip
    about = VERBS[verb]
    module = importlib.import_module(f"crystalline.cli.{verb}{'_' if keyword.iskeyword(verb) else ''}")
    if rest and (action := getattr(module, "ACTIONS", {}).get(rest[0])):
        verb, rest, (name, about) = f"{verb} {rest[0]}", rest[1:], action
        module = importlib.import_module(f"crystalline.cli.{name}")
    args = _parser_of(verb, about, module).parse_args(rest)
    from crystalline.cli import output

    output.start_logging(verbose=args.verbose, quiet=args.quiet)
    return int(module.run(args))


def main(argv: list[str] | None = None) -> int:
    """The entry point of the `cllm` command. Returns the exit code."""
    _accept_any_text()
    try:
        try:
            return _dispatch(sys.argv[1:] if argv is None else argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # while a failure can still be told
    except UserError as error:
        return _fail(error)
    except (KeyboardInterrupt, Interrupted) as error:
        print(f"\ncllm: stopped{f': {error}' if str(error) else ''}", file=sys.stderr)
        # To torchrun a failure is what it should start again, and a run that was told to stop is none.
        return EXIT_OK if isinstance(error, Interrupted) and "TORCHELASTIC_RUN_ID" in os.environ else EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_output()  # the reader went away (cllm ... | head): nothing more to say
        return 128 + signal.SIGPIPE
    except OSError as error:
        _silence_output()
        return _fail(from_os_error(error, "finish this command"))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _fail(
            UserError(
                "could not finish this command",
                "there is not enough memory",
                "close other programs, or use a smaller model.size, model.context or training.micro_batch",
                EXIT_SYSTEM,
            )
        )


def _fail(error: UserError) -> int:
    print(f"cllm: {error}", file=sys.stderr)
    return error.exit_code


def _accept_any_text() -> None:
    """Let no character that a terminal or a pipe cannot carry stop the command."""
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _silence_output() -> None:
    """Drop what standard output did not take, or the interpreter tries again at exit and complains."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
