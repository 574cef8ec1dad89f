"""`cllm export`: write a model for other programs, read it back, and keep it only if it is the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from crystalline.errors import EXIT_USAGE, UserError
from crystalline.export import check, gguf, hugging_face, layout, partners, reader
from crystalline.export.about import about
from crystalline.export.check import Comparison, Probe
from crystalline.model import checkpoints, packed, store
from crystalline.model.checkpoints import RECIPE, WEIGHTS
from crystalline.model.transformer import Transformer
from crystalline.run_folder import SEAL, new_file, new_folder, reporting_os_errors
from crystalline.tokens.codes import FILE as CODES_FILE
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG_FILE
from crystalline.tokens.tokenizer import FILE as TOKENIZER_FILE
from crystalline.tokens.tokenizer import Tokenizer

Target = Literal["hf", "gguf", "cllm"]
PRECISIONS: dict[Target, tuple[str, ...]] = {
    "hf": ("fp32", "bf16", "f16"),
    "gguf": ("fp32", "bf16", "f16", "q8_0"),
    "cllm": ("fp32",),
}


@dataclass(frozen=True)
class Exported:
    """What was written. bytes: its size. remarks: what is not exactly as here, for a person to know."""

    path: Path
    target: Target
    precision: str
    bytes: int
    checks: list[Comparison]
    remarks: list[str]


@dataclass(frozen=True)
class _Source:
    """The model to be exported, in fp32, and what goes with it."""

    folder: Path
    model: Transformer
    tokenizer: Tokenizer
    about: dict[str, Any]


def export(
    model: str | Path,
    target: Target,
    out: str | Path | None = None,
    precision: str = "fp32",
    license_: str | None = None,
    force: bool = False,
    verify: bool = False,
) -> Exported:
    """Write a model: a run folder, a checkpoint folder or a .cllm file.

    target: "hf": a folder for transformers; "gguf": a file for llama.cpp; "cllm": one file for crystalline.
    out: default: the model's name, in the present folder. precision: of the matrices, see PRECISIONS.
    force: replace what an earlier export has written there. verify: let transformers or llama.cpp read it, too.
    Raises UserError when it cannot be written, or is not the model when it is read back; then there is no new file.
    """
    if precision not in PRECISIONS[target]:
        raise UserError(
            f"could not export {model} with --precision {precision}",
            f"{target} is written in {', '.join(PRECISIONS[target])}",
            "choose one of these",
            EXIT_USAGE,
        )
    name = _name(Path(model))
    endings = {"hf": "-hf", "gguf": f"-{precision}.gguf", "cllm": packed.SUFFIX}
    path = Path(out).expanduser() if out is not None else Path(f"{name}{endings[target]}")
    _see_that_it_is_free(path, target, force)
    if verify:
        partners.require(target)
    folder = checkpoints.find(Path(model))
    source = _Source(folder, _network(folder), Tokenizer.load(folder), about(folder, name, license_))
    if target != "cllm" and (beyond := source.model.shape.beyond_plain):
        raise UserError(
            f"could not export {model} to {target}",
            f"it was trained with {', '.join(beyond)}, for which there is no place in the form of Qwen3",
            "export it with --to cllm, or train a model without these settings",
        )
    write: dict[Target, Callable[[Path, _Source, str, bool], tuple[list[Comparison], list[str]]]]
    write = {"hf": _hugging_face, "gguf": _gguf, "cllm": _cllm}
    with reporting_os_errors(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path) if target == "hf" else new_file(path) as part:
            checks, remarks = write[target](part, source, precision, verify)
        size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    return Exported(path, target, precision, size, checks, remarks)


def _network(folder: Path) -> Transformer:
    model = store.read_model(folder, torch.float32)
    if bad := [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]:
        raise UserError(
            f"could not export the model in {folder}",
            f"weights in {', '.join(bad[:3])} are no numbers (NaN or infinite)",
            "use an earlier checkpoint",
        )
    return model


def _name(path: Path) -> str:
    """What a model is called: as its file or run folder, with the step if it is a checkpoint that was named."""
    path = path.expanduser().absolute()
    if path.is_file():
        return path.stem
    if path.parent.name == "checkpoints":
        return f"{path.parent.parent.name}-{path.name}"
    return path.name or "model"


def _see_that_it_is_free(path: Path, target: Target, force: bool) -> None:
    """Only what an export has written is ever replaced, and only when that is asked for."""
    if not path.exists() and not path.is_symlink():
        return
    fitting = path.is_dir() if target == "hf" else path.is_file()
    ours = (path / SEAL).exists() and (path / "config.json").exists() if path.is_dir() else fitting
    if force and fitting and ours and not path.is_symlink():
        return
    raise UserError(
        f"could not write {path}",
        "it exists already" if fitting and ours else "it exists, and is no earlier export",
        "choose another name with --out" + (", or replace it with --force" if fitting and ours else ""),
    )


# --- the three targets: (where to write, source, precision, verify) -> (checks, remarks) ----------------------------


def _hugging_face(part: Path, source: _Source, precision: str, verify: bool) -> tuple[list[Comparison], list[str]]:
    tensors, shape = layout.to_plain(source.model), source.model.shape
    defaults = checkpoints.generation_defaults(source.folder)
    hugging_face.write(part, tensors, shape, source.tokenizer, defaults, precision, source.about)
    said = check.probe(source.model, source.tokenizer)
    checks = [_checked(said, tensors, reader.read_folder(part), precision)]
    if verify:
        checks.append(_required(partners.transformers(part, said, source.tokenizer, precision == "fp32")))
    return checks, []


def _gguf(part: Path, source: _Source, precision: str, verify: bool) -> tuple[list[Comparison], list[str]]:
    tensors, shape = layout.to_plain(source.model), source.model.shape
    template = hugging_face.chat_template(source.tokenizer)
    remarks = gguf.write(part, tensors, shape, source.tokenizer, precision, source.about, template)
    said = check.probe(source.model, source.tokenizer)
    checks = [_checked(said, tensors, reader.read_gguf(part), precision)]
    if verify:
        checks.append(_required(partners.llama_cpp(part, said, precision == "fp32")))
    return checks, remarks


def _checked(
    said: Probe, tensors: Mapping[str, Tensor], read: tuple[reader.Sizes, dict[str, reader.Array]], precision: str
) -> Comparison:
    """Compare what was read back with the model: weight by weight, and in what it says."""
    sizes, weights = read
    original = {name.removeprefix("model.").removesuffix(".weight"): t.numpy() for name, t in tensors.items()}
    check.check_rounding(weights, original, precision)
    by_hand = check.compare(said, lambda t: reader.logits(sizes, weights, t), "plain NumPy", precision == "fp32")
    return _required(by_hand)


def _cllm(part: Path, source: _Source, precision: str, verify: bool) -> tuple[list[Comparison], list[str]]:
    names = (WEIGHTS, TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, CODES_FILE)
    files: dict[str, Path | bytes] = {n: source.folder / n for n in names if (source.folder / n).exists()}
    recipe = checkpoints.read_recipe(source.folder)
    for name in ("source", "against"):  # paths of this machine
        recipe["settings"]["corpus"][name] = []
    for name, value in ((RECIPE, recipe), (packed.ABOUT, source.about)):
        files[name] = (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
    packed.pack(part, files)

    back = packed.unpack(part)
    model, said = store.read_model(back, torch.float32), check.probe(source.model, source.tokenizer)
    check.check_rounding(_arrays(model), _arrays(source.model), precision)

    checks = [_required(check.compare(said, check.logits_of(model), "crystalline", lossless=True))]
    if not model.shape.beyond_plain:
        codes = TokenCodes.load(back)
        sizes, weights = reader.read_checkpoint(back, codes.bags())
        by_hand = check.compare(said, lambda t: reader.logits(sizes, weights, t), "plain NumPy", lossless=True)
        checks.append(_required(by_hand))
    return checks, []


def _arrays(model: Transformer) -> dict[str, reader.Array]:
    return {name: weight.detach().numpy() for name, weight in model.named_parameters()}


def _required(comparison: Comparison) -> Comparison:
    check.require(comparison)
    return comparison
