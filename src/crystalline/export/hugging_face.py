"""Writing a folder that the transformers library loads: Qwen3ForCausalLM and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.export.about import card
from crystalline.export.layout import to_config
from crystalline.model.checkpoints import WEIGHTS
from crystalline.model.shape import Shape
from crystalline.run_folder import write_json, write_text
from crystalline.settings import Generation
from crystalline.tokens.tokenizer import CONFIG_FILE, FILE, SPECIAL_TOKENS, Tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
NAMES = {"fp32": "float32", "bf16": "bfloat16", "f16": "float16"}

# A conversation here is one text, each turn a paragraph; the answer begins a new line (pipeline/conversation.py).
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] | trim }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
)


def write(
    folder: Path, tensors: Mapping[str, Tensor], shape: Shape, tokenizer: Tokenizer, defaults: Generation,
    precision: str, about: dict[str, Any],
) -> None:  # fmt: skip
    """Fill a folder. tensors: by their names in a Qwen3 checkpoint. precision: a key of DTYPES."""
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    dtype = {"dtype": NAMES[precision], "torch_dtype": NAMES[precision]}  # the second for versions before 5
    write_json(folder / "config.json", to_config(shape) | ids | dtype)
    write_json(folder / "generation_config.json", ids | _generation(defaults, tokenizer))
    write_json(folder / FILE, _tokenizer(tokenizer))
    write_json(folder / CONFIG_FILE, _tokenizer_config(tokenizer, shape))
    write_text(folder / "README.md", card(about, shape, NAMES[precision]))
    rounded = {name: tensor.to(DTYPES[precision]).contiguous() for name, tensor in tensors.items()}
    if any(not bool(torch.isfinite(tensor).all()) for tensor in rounded.values()):
        raise UserError(
            f"could not write the weights as {precision}",
            "some are larger than its largest number",
            "use --precision fp32 or bf16",
        )
    try:
        save_file(rounded, folder / WEIGHTS, {"format": "pt"})
    except SafetensorError as error:  # the library's wrapping of an OSError
        raise UserError(
            f"could not write {folder.parent}", str(error), "free some disk space, then give the same command again",
            EXIT_SYSTEM,
        ) from error  # fmt: skip


def chat_template(tokenizer: Tokenizer) -> str:
    """How a conversation becomes text: as here, or as the imported model has it."""
    return tokenizer.chat_template or CHAT_TEMPLATE


def _generation(defaults: Generation, tokenizer: Tokenizer) -> dict[str, Any]:
    never = [id_ for id_ in tokenizer.special_tokens if id_ != tokenizer.eos]
    sampling = {
        "temperature": defaults.temperature, "top_k": defaults.top_k, "top_p": defaults.top_p,
        "min_p": defaults.min_p or None,
    }  # fmt: skip
    return {
        "do_sample": defaults.temperature > 0,
        **({name: value for name, value in sampling.items() if value is not None} if defaults.temperature else {}),
        "repetition_penalty": defaults.repetition_penalty,
        "max_new_tokens": defaults.max_tokens,
        **({"suppress_tokens": never} if never else {}),
    }


def _tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json; of a vocabulary made here with the rule that a text begins with bos, as generation does."""
    content = tokenizer.content()
    if tokenizer.is_own:
        name, id_ = SPECIAL_TOKENS[tokenizer.bos], tokenizer.bos
        first = {"SpecialToken": {"id": name, "type_id": 0}}
        text, second = ({"Sequence": {"id": which, "type_id": number}} for number, which in enumerate("AB"))
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, second],
            "special_tokens": {name: {"id": name, "ids": [id_], "tokens": [name]}},
        }
    return content


def _tokenizer_config(tokenizer: Tokenizer, shape: Shape) -> dict[str, Any]:
    names = tokenizer.special_tokens
    roles = {"bos": tokenizer.bos, "eos": tokenizer.eos, "pad": tokenizer.pad, "unk": tokenizer.unk}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{role}_token": names[id_] for role, id_ in roles.items() if id_ is not None},
        "model_max_length": shape.context,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # names of special tokens in a text are text, as here
        "chat_template": chat_template(tokenizer),
    }
