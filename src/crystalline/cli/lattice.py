"""`cllm lattice`: the prime codes of a run's tokens, numbers, and lattices in many dimensions. Reads only."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import lattice_numbers, lattice_vectors
from crystalline.errors import EXIT_DAMAGED, EXIT_OK, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from crystalline.tokens.codes import Factor, TokenCodes
    from crystalline.tokens.tokenizer import Tokenizer

EXAMPLES = f"""examples:
  cllm lattice token " Running"             the code of a token, its factors and its family
  cllm lattice family run --run my-model    all tokens with the root "run"
{lattice_numbers.EXAMPLES}
{lattice_vectors.EXAMPLES}

Without --run, the run named by CLLM_RUN is used, or the only run folder here.
cllm lattice ACTION --help explains an action."""
RUN_VARIABLE = "CLLM_RUN"
FAMILY_SHOWN = 20  # members that `token` shows; `family` shows all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions, each with a parser of its own that names its function as `do`."""
    parser.set_defaults(print_help=parser.print_help, do=None)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=type(parser))
    token = actions.add_parser("token", help="code, factors and family of each token in a text", allow_abbrev=False)
    family = actions.add_parser("family", help="all tokens that share a token's root", allow_abbrev=False)
    for action in (token, family):
        action.add_argument("text", metavar="TEXT", help='what to look up; a space in front counts: " Running"')
        action.add_argument("--run", metavar="RUN", help="run folder with the vocabulary")
        action.add_argument("--json", action="store_true", help="print JSON, for scripts")
    token.set_defaults(do=_token)
    family.set_defaults(do=_family)
    lattice_numbers.add_actions(actions)
    lattice_vectors.add_actions(actions)


def run(args: argparse.Namespace) -> int:
    """Do one of the actions; see the module's `EXAMPLES`."""
    if args.do is None:
        args.print_help()
        raise UserError(
            "cllm lattice needs to know what to show",
            "no action was given",
            "see cllm lattice --help for the actions (for example: cllm lattice factor 144001)",
            EXIT_USAGE,
        )
    args.do(args)
    return EXIT_OK


def find_run(named: str | None) -> Path:
    """The run folder to use: the one that is named, that of CLLM_RUN, or the only one here."""
    chosen = named or os.environ.get(RUN_VARIABLE)
    if chosen:
        return Path(chosen)
    here = Path()
    found = sorted(
        manifest.parent
        for pattern in ("manifest.json", "*/manifest.json", "runs/*/manifest.json")
        for manifest in here.glob(pattern)
    )
    if len(found) == 1:
        return found[0]
    raise UserError(
        "could not tell which run is meant",
        f"there are {len(found)} run folders here: {', '.join(map(str, found[:5]))}"
        if found
        else "there is no run folder here",
        f"name one with --run RUN, or set {RUN_VARIABLE}",
        EXIT_USAGE,
    )


def _open(args: argparse.Namespace) -> tuple[Tokenizer, TokenCodes]:
    from crystalline.run_folder import RunFolder
    from crystalline.tokens.codes import TokenCodes
    from crystalline.tokens.tokenizer import Tokenizer

    folder = RunFolder.open(find_run(args.run)).tokenizer
    tokenizer, codes = Tokenizer.load(folder), TokenCodes.load(folder)
    if codes.vocabulary_size != tokenizer.vocabulary_size:
        raise UserError(
            f"could not use the token codes in {folder}",
            f"they are for {codes.vocabulary_size} tokens, the tokenizer has {tokenizer.vocabulary_size}",
            "restore both files from the same backup, or delete this folder and give cllm run RUN again",
            EXIT_DAMAGED,
        )
    return tokenizer, codes


def _token(args: argparse.Namespace) -> None:
    from crystalline.cli import output

    tokenizer, codes = _open(args)
    ids = tokenizer.encode_bytes(os.fsencode(args.text))
    if not ids:
        raise UserError("there is no token to show", "the text is empty", 'give some text, such as " Running"')
    if args.json:
        shown = [{**_member(tokenizer, codes, id_), **_details(tokenizer, codes, id_)} for id_ in ids]
        output.print_json({"text": args.text, "tokens": shown})
        return
    if len(ids) > 1:
        print(f"{_quote(args.text)} is {len(ids)} tokens: {'  '.join(_name(tokenizer, id_) for id_ in ids)}\n")
    print("\n\n".join(_describe(tokenizer, codes, id_) for id_ in ids))


def _family(args: argparse.Namespace) -> None:
    from crystalline.cli import output

    tokenizer, codes = _open(args)
    # A word is a token of its own more often after a space than at the start of a text.
    candidates = [tokenizer.encode_bytes(os.fsencode(text)) for text in (args.text, f" {args.text}")]
    ids = next((ids for ids in candidates if len(ids) == 1), None)
    if ids is None:
        raise UserError(
            f"{_quote(args.text)} has no family of its own",
            f"it is {len(candidates[0])} tokens of this vocabulary, not one",
            "look at each of them: cllm lattice token TEXT",
        )
    root, members = codes.root(ids[0]), codes.family(ids[0])
    if args.json:
        members_shown = [{**_member(tokenizer, codes, id_), "factors": _factors(codes, id_)} for id_ in members]
        output.print_json({"root": vars(root), "family": members_shown})
        return
    print(f"The family of {_quote(root.name)}, prime {root.prime}: {_tokens(len(members))}\n")
    print(_table(tokenizer, codes, members))


# --- what is shown of a token -----------------------------------------------------------------------------


def _describe(tokenizer: Tokenizer, codes: TokenCodes, id_: int) -> str:
    """A token as a paragraph: its code, what each prime stands for, its family."""
    factors = sorted(codes.factors(id_))
    product = " × ".join(str(factor.prime) for factor in factors)
    equation = f" = {product}" if len(factors) > 1 else ", a prime"
    lines = [f"{_name(tokenizer, id_)} is token {id_}, its code {codes.code(id_)}{equation}"]
    width = max(len(str(factor.prime)) for factor in factors)
    lines += [f"  {factor.prime:>{width}}  {_words(factor)}" for factor in factors]
    family, root = codes.family(id_), codes.root(id_)
    if len(family) == 1:
        lines.append(f"It is alone: no other token has the root {_quote(root.name)}.")
    else:
        lines.append(f"The family of {_quote(root.name)}: {_tokens(len(family))}")
        lines.append(_table(tokenizer, codes, family[:FAMILY_SHOWN]))
    if len(family) > FAMILY_SHOWN:
        lines.append(f"  and {len(family) - FAMILY_SHOWN} more (cllm lattice family TEXT shows all)")
    return "\n".join(lines)


def _table(tokenizer: Tokenizer, codes: TokenCodes, ids: list[int]) -> str:
    rows = []
    for id_ in ids:
        operators = [_words(factor) for factor in codes.factors(id_)[1:]]
        rows.append((_name(tokenizer, id_), str(codes.code(id_)), ", ".join(operators) or "the root itself"))
    names, numbers = (max(len(row[i]) for row in rows) for i in (0, 1))
    return "\n".join(f"  {name:<{names}}  {code:>{numbers}}  {words}" for name, code, words in rows)


def _words(factor: Factor) -> str:
    """What a factor stands for, in words."""
    return {
        "root": f"root {_quote(factor.name)}",
        "space": "space before",
        "underscore": "underscore before",
        "title": "Title case",
        "upper": "ALL CAPITALS",
        "suffix": f"-{factor.name}",
        "mark": f"{_quote(factor.name)} before",
    }[factor.kind]


def _text(tokenizer: Tokenizer, id_: int) -> str:
    """A token as text; stray bytes as \\xNN."""
    from crystalline.tokens.tokenizer import SPECIAL_TOKENS

    if tokenizer.is_special(id_):
        return SPECIAL_TOKENS[id_]
    return tokenizer.token_bytes(id_).decode("utf-8", errors="backslashreplace")


def _name(tokenizer: Tokenizer, id_: int) -> str:
    return _quote(_text(tokenizer, id_))


def _quote(text: str) -> str:
    """In quotes, so that a space can be seen; what cannot be printed as an escape."""
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _member(tokenizer: Tokenizer, codes: TokenCodes, id_: int) -> dict[str, Any]:
    return {"id": id_, "text": _text(tokenizer, id_), "code": codes.code(id_)}


def _factors(codes: TokenCodes, id_: int) -> list[dict[str, Any]]:
    return [vars(factor) for factor in codes.factors(id_)]


def _details(tokenizer: Tokenizer, codes: TokenCodes, id_: int) -> dict[str, Any]:
    family = [_member(tokenizer, codes, member) for member in codes.family(id_)]
    return {"factors": _factors(codes, id_), "family": family}
