"""`cllm lattice token, family, nearest, similar, map`: a vocabulary by its prime codes. Reads only."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crystalline.cli import common
from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from crystalline.tokens.codes import Factor, TokenCodes
    from crystalline.tokens.positions import Positions
    from crystalline.tokens.tokenizer import Tokenizer

EXAMPLES = """  cllm lattice token " Running"               the code of a token, its factors, family and position
  cllm lattice family run --run my-model      all tokens with the root "run"
  cllm lattice nearest " Running" -k 5        the tokens most like it by their codes
  cllm lattice nearest " Running" --learned   by what the model has learned
  cllm lattice similar run " Running"         how alike two tokens are, and why
  cllm lattice map --plot map.svg             a picture of the vocabulary"""
RUN_VARIABLE = "CLLM_RUN"
FAMILY_SHOWN = 20  # members that `token` shows; `family` shows all
PIECES_SHOWN, LONGEST_SHOWN = 8, 60  # tokens and characters of a text that is not one token
PARTS = ("closeness", "shared", "relation")
PARTS_TOLD = (
    "of their positions",
    "primes, by weight, over all that either has",
    "root and derived: 1 same, 0.75 one divides the other, 0.5 same root, 0.25 an operator",
)
OPERATORS_SHOWN = 20
FAMILIES_SHOWN = 8  # the largest ones, in the overview of `map`


def add_actions(actions: argparse._SubParsersAction[Any]) -> None:
    """The five actions, each with a parser of its own."""

    def action(name: str, do: Callable[[argparse.Namespace], None], about: str, example: str) -> Any:
        parser = actions.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"example:\n{example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.set_defaults(do=do)
        parser.add_argument("--run", metavar="RUN", help="run or checkpoint folder with the vocabulary")
        common.add_json(parser)
        return parser

    text = 'what to look up; a space in front counts: " Running"'
    token = action(
        "token", _token, "code, factors, position and family of each token in a text",
        '  cllm lattice token " Running"\n  cllm lattice token "Once upon a time" --json',
    )  # fmt: skip
    token.add_argument("text", metavar="TEXT", help=text)
    family = action("family", _family, "all tokens that share a token's root", "  cllm lattice family run")
    family.add_argument("text", metavar="TEXT", help=text)
    nearest = action(
        "nearest", _nearest, "the tokens most similar to one",
        '  cllm lattice nearest " Running" -k 5\n  cllm lattice nearest " Running" --learned',
    )  # fmt: skip
    nearest.add_argument("text", metavar="TEXT", help=text)
    nearest.add_argument("-k", type=common.whole(1), default=10, metavar="K", help="how many; default: 10")
    by = nearest.add_mutually_exclusive_group()
    by.add_argument(
        "--learned", action="store_true", help="by the cosine of the model's token vectors, not by the codes"
    )
    similar = action(
        "similar", _similar, "how similar two tokens are by their codes, and why",
        '  cllm lattice similar run " Running"\n  cllm lattice similar run " Running" --weights 0 1 0',
    )  # fmt: skip
    similar.add_argument("a", metavar="A", help=text)
    similar.add_argument("b", metavar="B", help="the other one")
    for parser in (by, similar):
        parser.add_argument(
            "--weights", type=float, nargs=3, default=(0.5, 0.3, 0.2), metavar=("C", "S", "R"),
            help="of closeness, shared primes and root/derived; default: 0.5 0.3 0.2",
        )  # fmt: skip
    map_ = action(
        "map", _map, "an overview of the vocabulary, or a picture of it",
        "  cllm lattice map\n  cllm lattice map --plot map.svg\n  cllm lattice map --plot learned.svg --learned",
    )  # fmt: skip
    map_.add_argument("--plot", metavar="FILE", help="write a picture to this SVG file")
    map_.add_argument(
        "--learned", action="store_true", help="draw the model's token vectors (their two main directions)"
    )


@dataclass(frozen=True)
class Vocabulary:
    """What the actions look at. vectors: (V, D) that a model has learned, where they were asked for."""

    tokenizer: Tokenizer
    codes: TokenCodes
    vectors: NDArray[np.float32] | None = None

    def token(self, text: str) -> int:
        """The one token that a person means by `text`. UserError when it is not one."""
        special = {name: id_ for id_, name in self.tokenizer.special_tokens.items()}
        if text in special:
            return special[text]
        if not text:
            raise UserError("there is no token to look up", "the text is empty", 'give a word, such as "run"')
        # A word is a token of its own more often after a space than at the start of a text.
        candidates = [self.tokenizer.encode_bytes(os.fsencode(words)) for words in (text, f" {text}")]
        ids = next((ids for ids in candidates if len(ids) == 1), None)
        if ids is None:
            pieces = "  ".join(self.name(id_) for id_ in candidates[0][:PIECES_SHOWN])
            more = "  …" if len(candidates[0]) > PIECES_SHOWN else ""
            raise UserError(
                f"{_quote(text[:LONGEST_SHOWN])} is not one token",
                f"it is {len(candidates[0])} tokens of this vocabulary: {pieces}{more}",
                "use one of these, or look at all: cllm lattice token TEXT",
            )
        return ids[0]

    def text(self, id_: int) -> str:
        """A token as text; stray bytes as \\xNN."""
        if self.tokenizer.is_special(id_):
            return self.tokenizer.special_tokens[id_]
        return self.tokenizer.token_bytes(id_).decode("utf-8", errors="backslashreplace")

    def name(self, id_: int) -> str:
        """The same in quotes, so that a space can be seen."""
        return _quote(self.text(id_))

    def member(self, id_: int) -> dict[str, Any]:
        """A token for a script."""
        return {"id": id_, "text": self.text(id_), "code": self.codes.code(id_)}

    def factors(self, id_: int) -> list[dict[str, Any]]:
        """Its factors for a script."""
        return [vars(factor) for factor in self.codes.factors(id_)]


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


def _open(args: argparse.Namespace) -> Vocabulary:
    """The vocabulary of a run or checkpoint folder: of its newest model, whose codes training may have changed, or
    what it begins with; with --learned the model's vectors too.
    """
    from crystalline.model import checkpoints
    from crystalline.run_folder import RunFolder
    from crystalline.tokens import tokenizer
    from crystalline.tokens.codes import TokenCodes

    path = find_run(args.run)
    vectors = None
    if getattr(args, "learned", False):
        from crystalline.model import generation

        folder = checkpoints.find(path)
        vectors = generation.load(folder).model.folded_embedding().numpy()
    elif path.is_file():
        folder = checkpoints.find(path)
    elif (path / tokenizer.FILE).exists():
        folder = path
    else:
        run = RunFolder.open(path)
        folder = next(iter(checkpoints.checkpoint_folders(run)), run.tokenizer)
    found = Vocabulary(tokenizer.Tokenizer.load(folder), TokenCodes.load(folder), vectors)
    if found.codes.vocabulary_size != found.tokenizer.vocabulary_size:
        raise UserError(
            f"could not use the token codes in {folder}",
            f"they are for {found.codes.vocabulary_size} tokens, the tokenizer has {found.tokenizer.vocabulary_size}",
            "restore both files from the same backup, or delete this folder and give cllm run RUN again",
            EXIT_DAMAGED,
        )
    return found


# --- the actions ------------------------------------------------------------------------------------------


def _token(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.tokens.positions import Positions

    found = _open(args)
    special = args.text in found.tokenizer.special_tokens.values()
    ids = [found.token(args.text)] if special else found.tokenizer.encode_bytes(os.fsencode(args.text))
    if not ids:
        raise UserError("there is no token to show", "the text is empty", 'give some text, such as " Running"')
    positions = Positions(found.codes)
    if args.json:
        shown = [
            {
                **found.member(id_),
                "factors": found.factors(id_),
                "position": _position(positions, id_),
                "family": [found.member(member) for member in found.codes.family(id_)],
            }
            for id_ in ids
        ]
        output.print_json({"text": args.text, "tokens": shown})
        return
    if len(ids) > 1:
        print(f"{_quote(args.text)} is {len(ids)} tokens: {'  '.join(map(found.name, ids))}\n")
    print("\n\n".join(_describe(found, positions, id_) for id_ in ids))


def _family(args: argparse.Namespace) -> None:
    from crystalline.cli import output

    found = _open(args)
    id_ = found.token(args.text)
    root, members = found.codes.root(id_), found.codes.family(id_)
    if args.json:
        shown = [{**found.member(member), "factors": found.factors(member)} for member in members]
        output.print_json({"root": vars(root), "family": shown})
        return
    print(f"The family of {_quote(root.name)}, prime {root.prime}: {_tokens(len(members))}\n")
    print(_table(found, members))


def _nearest(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.tokens.similarity import Similarity, Weights, nearest_vectors

    found = _open(args)
    id_ = found.token(args.text)
    if found.vectors is not None:
        near = nearest_vectors(found.vectors, id_, args.k)
        measure, parts = "cosine", None
    else:
        similarity = Similarity(found.codes, weights=Weights(*args.weights))
        near = similarity.nearest(id_, args.k)
        measure, parts = "similarity", similarity.parts([id_] * len(near), [other for other, _ in near])
    if args.json:
        shown = [{**found.member(other), measure: value} for other, value in near]
        if parts is not None:
            for about, of_pair in zip(shown, parts.tolist(), strict=True):
                about.update(zip(PARTS, of_pair, strict=True))
        output.print_json({"token": found.member(id_), "by": measure, "nearest": shown})
        return
    width = max((len(found.name(other)) for other, _ in near), default=0)
    how = "by the vectors the model has learned" if parts is None else "by their codes"
    print(f"Nearest to {found.name(id_)} {how}:\n")
    for line, (other, value) in enumerate(near):
        told = f"{measure} {value:.3f}"
        if parts is not None:
            told += "  = " + ", ".join(f"{name} {part:.2f}" for name, part in zip(PARTS, parts[line], strict=True))
        print(f"  {found.name(other):<{width}}  {told}")


def _similar(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.tokens.similarity import Similarity, Weights

    found = _open(args)
    a, b = found.token(args.a), found.token(args.b)
    similarity = Similarity(found.codes, weights=Weights(*args.weights))
    (whole,), (parts,) = similarity.pairs([a], [b]).tolist(), similarity.parts([a], [b]).tolist()
    common_ = [factor for factor in found.codes.factors(a) if factor in found.codes.factors(b)]
    if args.json:
        output.print_json(
            {
                "a": found.member(a),
                "b": found.member(b),
                "similarity": whole,
                **dict(zip(PARTS, parts, strict=True)),
                "weights": dict(zip(PARTS, similarity.weights, strict=True)),
                "shared_factors": [vars(factor) for factor in common_],
            }
        )
        return
    print(f"{found.name(a)} and {found.name(b)}: similarity {whole:.3f}")
    for name, weight, part, words in zip(PARTS, similarity.weights, parts, PARTS_TOLD, strict=True):
        print(f"  {weight:.2f} × {part:.3f}  {name:<9}  {words}")
    shared = ", ".join(f"{factor.prime} ({_words(factor)})" for factor in sorted(common_))
    print(f"They share {shared}." if shared else "They share no prime.")


def _map(args: argparse.Namespace) -> None:
    from crystalline.cli import output
    from crystalline.pipeline import token_map

    if args.learned and not args.plot:
        raise UserError(
            "could not draw the learned vectors", "no file was named", "give --plot FILE.svg too", EXIT_USAGE
        )
    found = _open(args)
    overview = token_map.overview(found.codes)
    if args.plot:
        drawn = token_map.svg(found.codes, found.text, found.vectors)
        common.write_file(args.plot, drawn)
    if args.json:
        for family in overview["largest"]:
            family["members"] = [found.text(id_) for id_ in family["members"]]
        for operator in overview["operators"]:
            operator["factor"] = vars(operator["factor"])
        output.print_json({**overview, "plot": args.plot})
        return
    if args.plot:
        if not args.quiet:
            print(f"wrote {args.plot}: {_tokens(found.codes.vocabulary_size)}")
        return
    tokens, roots, families, inside = (overview[name] for name in ("tokens", "roots", "families", "in_families"))
    print(f"{tokens:,} tokens from {roots:,} roots; {families:,} roots have a family,")
    print(f"with {inside:,} tokens ({inside / tokens:.0%})")
    print("\nThe largest families:")
    for family in overview["largest"][:FAMILIES_SHOWN]:
        members = family["members"]
        shown = "  ".join(map(found.name, members[:6]))
        print(f"  {_quote(family['root']['name'])} × {len(members)}: {shown}{'  …' if len(members) > 6 else ''}")
    print("\nOperators, with their primes and how many tokens have them:")
    for operator in overview["operators"][:OPERATORS_SHOWN]:
        print(f"  {operator['factor'].prime:>4}  {_words(operator['factor']):<20}  {operator['tokens']:>6,}")
    left = len(overview["operators"]) - OPERATORS_SHOWN
    if left > 0:
        print(f"  and {left} more (--json shows all)")
    print("\nA picture: cllm lattice map --plot map.svg")


# --- what is shown of a token -----------------------------------------------------------------------------


def _describe(found: Vocabulary, positions: Positions, id_: int) -> str:
    """A token as a paragraph: its code, what each prime stands for, its place, its family."""
    codes = found.codes
    factors = sorted(codes.factors(id_))
    product = " × ".join(str(factor.prime) for factor in factors)
    equation = f" = {product}" if len(factors) > 1 else ", a prime"
    lines = [f"{found.name(id_)} is token {id_}, its code {codes.code(id_)}{equation}"]
    width = max(len(str(factor.prime)) for factor in factors)
    lines += [f"  {factor.prime:>{width}}  {_words(factor)}" for factor in factors]
    place = _position(positions, id_)
    beside = f"; it stands {math.sqrt(len(place['operators'])) / 4:.2f} beside" if place["operators"] else ""
    at = f"({place['x']:.3f}, {place['y']:.3f})"
    lines.append(f"Its root is prime number {place['rank']}, at {at} of the spiral{beside}.")
    family, root = codes.family(id_), codes.root(id_)
    if len(family) == 1:
        lines.append(f"It is alone: no other token has the root {_quote(root.name)}.")
    else:
        lines.append(f"The family of {_quote(root.name)}: {_tokens(len(family))}")
        lines.append(_table(found, family[:FAMILY_SHOWN]))
    if len(family) > FAMILY_SHOWN:
        lines.append(f"  and {len(family) - FAMILY_SHOWN} more (cllm lattice family TEXT shows all)")
    return "\n".join(lines)


def _table(found: Vocabulary, ids: list[int]) -> str:
    codes = found.codes
    rows = []
    for id_ in ids:
        operators = [_words(factor) for factor in codes.factors(id_)[1:]]
        rows.append((found.name(id_), str(codes.code(id_)), ", ".join(operators) or "the root itself"))
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


def _quote(text: str) -> str:
    """In quotes, so that a space can be seen; what cannot be printed as an escape."""
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) + '"'


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _position(positions: Positions, id_: int) -> dict[str, Any]:
    """A token's place for a script. exact: in units of 2⁻²⁵⁶, as text: few readers of JSON keep such numbers."""
    from crystalline.tokens.positions import BITS

    x, y, *offsets = positions.position(id_)
    return {
        "rank": int(positions.ranks[id_]),
        "x": float(positions.plane[id_, 0]),
        "y": float(positions.plane[id_, 1]),
        "exact": {"bits": BITS, "x": str(x), "y": str(y)},
        "operators": [factor.prime for factor, offset in zip(positions.axes, offsets, strict=True) if offset],
    }
