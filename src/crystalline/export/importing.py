"""`cllm import`: a model from elsewhere becomes the one that a run starts from (RUN/start).

It is a folder like a checkpoint's: weights, recipe, tokenizer, prime codes. The codes are made from the vocabulary,
and the vectors of their factors are zero at first: the network predicts exactly what it did before.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crystalline import settings as settings_module
from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, UserError
from crystalline.export import check, layout, reader
from crystalline.export.check import Comparison
from crystalline.export.layout import HEAD, TABLE
from crystalline.model import checkpoints, packed, store
from crystalline.model.checkpoints import RECIPE, WEIGHTS
from crystalline.model.shape import SIZES, Shape
from crystalline.run_folder import SEAL, damage, read_json, write_json
from crystalline.tokens.codes import FILE as CODES_FILE
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.tokenizer import CONFIG_FILE, FILE, Tokenizer

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
LONGEST_CONTEXT = 2048  # that is taken over without being asked for: memory of training grows with it
DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Imported:
    """What was imported. settings: "model.key" -> value, which give the run this network.

    checks: beside an independent reading of the source. remarks: what a person should know.
    """

    settings: dict[str, Any]
    parameters: int
    checks: list[Comparison]
    remarks: list[str]


def import_model(source: Path, folder: Path, context: int | None = None) -> Imported:
    """Fill `folder` with the model in `source`: a Hugging Face folder, a .cllm file, a run or checkpoint folder.

    context: tokens seen at once, if less than what the model was made for.
    Raises UserError for what cannot be used; the folder may then be left half filled.
    """
    if not source.exists():
        raise UserError(
            f"could not import {source}", "there is no such file or folder",
            "give the path of a Hugging Face folder or a .cllm file",
        )  # fmt: skip
    if source.is_dir() and (source / CONFIG).exists():
        return _hugging_face(source, folder, context)
    if source.is_dir() and not (source / WEIGHTS).exists() and not (source / "manifest.json").exists():
        raise UserError(
            f"could not import {source}",
            f"it has no {CONFIG}, and is no run or checkpoint folder",
            "give the path of a Hugging Face folder or a .cllm file",
        )
    return _crystalline(source, folder, context)


# --- crystalline's own -----------------------------------------------------------------------------------------


def _crystalline(source: Path, folder: Path, context: int | None) -> Imported:
    found = checkpoints.find(source)
    recipe, about = checkpoints.read_recipe(found), {}
    if (found / packed.ABOUT).exists():
        about = read_json(found / packed.ABOUT)
    origin = about.get("name") or about.get("origin") or source.stem
    for name in (WEIGHTS, FILE, CONFIG_FILE, CODES_FILE):
        if (found / name).exists():
            shutil.copyfile(found / name, folder / name)
    values = dict(recipe["settings"]["model"])
    for name in ("source", "against"):
        recipe["settings"]["corpus"][name] = []
    if context is not None:
        values["context"] = recipe["shape"]["context"] = min(context, recipe["shape"]["context"])
    write_json(folder / RECIPE, recipe)
    write_json(folder / packed.ABOUT, {"origin": origin, "license": about.get("license")})
    model, before = store.read_model(folder, torch.float32), store.read_model(found, torch.float32)
    said = check.probe(model, Tokenizer.load(folder))
    comparison = check.compare(said, check.logits_of(before), "crystalline", lossless=True)
    check.require(comparison)
    chosen = {f"model.{name}": value for name, value in values.items() if value is not None}
    return Imported(chosen, model.shape.parameters, [comparison], [])


# --- Hugging Face ----------------------------------------------------------------------------------------------


def _hugging_face(source: Path, folder: Path, context: int | None) -> Imported:
    if (source / SEAL).exists() and (reason := damage(source)):
        raise UserError(f"could not import {source}", reason, "export it again", EXIT_DAMAGED)
    config = _json(source / CONFIG)
    theirs = layout.from_config(config, context, LONGEST_CONTEXT)
    tokenizer, remarks = _tokenizer(source, config, theirs.vocabulary)
    if theirs.context < int(config.get("max_position_embeddings", theirs.context)) and context is None:
        remarks.append(
            f"it was made for {config['max_position_embeddings']:,} tokens at once; this run uses {theirs.context:,} "
            "(--context N for another number)"
        )
    weights = layout.from_plain(_tensors(source, config), theirs)
    if bad := [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError(
            f"could not import {source}", f"weights in {', '.join(bad[:3])} are no numbers (NaN or infinite)",
            "get the model again, or import another one", EXIT_DAMAGED,
        )  # fmt: skip
    codes = TokenCodes.build(tokenizer)
    shape = replace(theirs, vocabulary=tokenizer.vocabulary_size, factors=codes.factor_count)
    weights["embedding.own"] = weights["embedding.own"][: shape.vocabulary].contiguous()
    if shape.factors:
        weights["embedding.factors"] = torch.zeros(shape.factors, shape.width)
    values = _model_settings(shape)
    # Read with the limits of settings, so that what cannot be trained is told now.
    settings = settings_module.load(None, {}, {**values, "training.precision": "fp32"})
    tokenizer.save(folder)
    codes.save(folder)
    save_file(weights, folder / WEIGHTS)
    recipe = {"settings": settings.model_dump(), "shape": asdict(shape), "text": {}, "machine": {}}
    write_json(folder / RECIPE, recipe)
    write_json(folder / packed.ABOUT, {"origin": source.resolve().name, "license": _license(source)})
    return Imported(values, shape.parameters, [_compared(source, folder, tokenizer, theirs)], remarks)


def _compared(source: Path, folder: Path, tokenizer: Tokenizer, theirs: Shape) -> Comparison:
    """The imported network beside the source's own bytes, read by the plain reader."""
    files = [source / name for name in sorted(set(_files(source).values()))]
    tensors = {name: array for file in files for name, array in reader.read_safetensors(file).items()}
    weights = {name.removeprefix("model.").removesuffix(".weight"): array for name, array in tensors.items()}
    sizes = reader.Sizes(
        theirs.layers, theirs.heads, theirs.kv_heads, theirs.head_width, theirs.norm_epsilon, theirs.rope_base
    )
    said = check.probe(store.read_model(folder, torch.float32), tokenizer)
    size = tokenizer.vocabulary_size
    found = check.compare(said, lambda t: reader.logits(sizes, weights, t)[:, :size], "plain NumPy", lossless=True)
    check.require(found)
    return found


def _json(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"could not read {path}", "it is no JSON object", "get the model again", EXIT_DAMAGED)
    return value


def _tokenizer(source: Path, config: Mapping[str, Any], rows: int) -> tuple[Tokenizer, list[str]]:
    path = source / FILE
    if not path.exists():
        raise UserError(
            f"could not import {source}",
            f"there is no {FILE} in it",
            "save it with AutoTokenizer.from_pretrained(...).save_pretrained(...): a byte-level BPE is needed",
        )
    try:
        engine = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library's own kind
        raise UserError(f"could not read {path}", str(error), "get the model again", EXIT_DAMAGED) from error
    reason = _why_not_byte_level(_json(path))
    if not reason:
        try:
            tokenizer = Tokenizer(engine, _roles(source, config, engine))
        except (ValueError, KeyError) as error:
            reason = str(error)
    if reason:
        raise UserError(
            f"could not import the tokenizer of {source}",
            reason,
            "import a model with a byte-level BPE tokenizer, such as those of the Qwen3 family",
        )
    if tokenizer.vocabulary_size > rows:
        raise UserError(
            f"could not import {source}",
            f"its tokenizer has {tokenizer.vocabulary_size:,} tokens, its network {rows:,}",
            "get both from the same place",
        )
    remarks = []
    if tokenizer.vocabulary_size < rows:
        remarks.append(f"{rows - tokenizer.vocabulary_size:,} rows of its table are no token's, and were left out")
    if (normalizer := _json(path).get("normalizer")) is not None:
        remarks.append(f"its tokenizer writes text in Unicode form {normalizer['type']}: that is what comes back")
    return tokenizer, remarks


def _why_not_byte_level(content: dict[str, Any]) -> str:
    """Why a tokenizer.json is none that works here; "" when it does."""
    model, pre, normalizer = content.get("model") or {}, content.get("pre_tokenizer") or {}, content.get("normalizer")
    if model.get("type") != "BPE":
        return f"it is a {model.get('type')} model, not BPE"
    parts = pre.get("pretokenizers", []) if pre.get("type") == "Sequence" else [pre]
    if [part.get("type") for part in parts][-1:] != ["ByteLevel"]:
        return "it does not work on bytes (its last pre_tokenizer is not ByteLevel)"
    if any(part.get("add_prefix_space") for part in parts):
        return "it adds a space before the text, which would not come back unchanged"
    if any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "dropout")):
        return "its BPE marks parts of words, falls back to bytes, or has dropout"
    if normalizer is not None and normalizer.get("type") != "NFC":
        return f"it changes the text before (normalizer {normalizer.get('type')})"
    return ""


def _roles(source: Path, config: Mapping[str, Any], engine: tokenizers.Tokenizer) -> dict[str, Any]:
    """Which tokens begin, end and pad a text, from the files that may tell; the first that does counts."""
    found: dict[str, Any] = {}
    for name in (CONFIG_FILE, "special_tokens_map.json"):
        if (source / name).exists():
            found = {key: value for key, value in _json(source / name).items() if value is not None} | found
    template = source / "chat_template.jinja"
    if template.exists():
        found.setdefault("chat_template", template.read_text("utf-8", errors="replace"))
    generation = source / "generation_config.json"
    for told in (_json(generation) if generation.exists() else {}, config):
        for role in ("bos", "eos", "pad"):
            ids = told.get(f"{role}_token_id")
            first = ids[0] if isinstance(ids, list) and ids else ids
            if isinstance(first, int) and f"{role}_token" not in found and first >= 0:
                name_ = engine.id_to_token(first)
                if name_ is not None:
                    found[f"{role}_token"] = name_
    return found


def _files(source: Path) -> dict[str, str]:
    """Tensor -> name of the file that has it; without an index all are in one ("" stands for all)."""
    index = source / INDEX
    if not index.exists():
        if not (source / WEIGHTS).exists():
            has_pickle = any(source.glob("*.bin"))
            raise UserError(
                f"could not import {source}",
                f"there is no {WEIGHTS} in it" + (", only .bin files, which can hold programs" if has_pickle else ""),
                "get the model as safetensors",
            )
        return {"": WEIGHTS}
    places = _json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise UserError(f"could not read {index}", "it has no weight_map", "get the model again", EXIT_DAMAGED)
    for name in set(places.values()):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(
                f"could not import {source}", f"{INDEX} names a file {name!r}, which cannot be in it",
                "do not use this model: such a name can be an attack",
            )  # fmt: skip
        if not (source / name).is_file():
            raise UserError(f"could not import {source}", f"{name} is missing", "get the missing file", EXIT_DAMAGED)
    return places


def _tensors(source: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Name -> tensor, of all files. The head must be tied to the table."""
    found: dict[str, Tensor] = {}
    for name in sorted(set(_files(source).values())):
        try:
            with safe_open(source / name, "pt") as file:
                for key in file.keys():  # noqa: SIM118  no mapping
                    kind = file.get_slice(key).get_dtype()
                    if kind not in DTYPES:
                        raise UserError(
                            f"could not import {source}",
                            f"{key} has numbers of type {kind}, not {', '.join(DTYPES)}",
                            "get the model in bf16, and not quantised",
                        )  # fmt: skip
                    if not key.endswith("rotary_emb.inv_freq"):  # computed, and stored by old versions
                        found[key] = file.get_tensor(key)
        except SafetensorError as error:
            raise UserError(
                f"could not read {source / name}", str(error), "get the file again", EXIT_DAMAGED
            ) from error
    head = found.pop(HEAD, None)
    tied = bool(config.get("tie_word_embeddings", False))
    if (head is None and not tied) or (head is not None and TABLE in found and not torch.equal(head, found[TABLE])):
        raise UserError(
            f"could not import {source}",
            "its head is not tied to its table of token vectors, as that of the networks here is",
            "import a model with tie_word_embeddings, as the smaller ones of these families are",
            EXIT_USAGE,
        )
    return found


def _model_settings(shape: Shape) -> dict[str, Any]:
    sizes = ("layers", "width", "heads", "kv_heads", "head_width", "hidden", "context")
    names = (*sizes, "rope_base", "norm_epsilon", "qk_norm")
    values = {f"model.{name}": getattr(shape, name) for name in names}
    # The name decides nothing any more but how many sequences a position has.
    return values | {"model.size": min(SIZES, key=lambda size: abs(np.log(_number(size) / shape.parameters)))}


def _number(size: str) -> float:
    return float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _license(source: Path) -> str | None:
    """What its model card says."""
    path = source / "README.md"
    lines = path.read_text("utf-8", errors="replace").split("\n") if path.exists() else []
    if lines[:1] == ["---"] and "---" in lines[1:]:
        for line in lines[1 : lines.index("---", 1)]:
            key, _, value = line.partition(":")
            if key == "license" and value.strip():
                return value.strip().strip("'\"")[:200]
    return None
