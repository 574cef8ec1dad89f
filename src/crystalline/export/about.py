"""What goes with a model besides its weights, as JSON and as a card: name, licence, origin, how it was trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from crystalline import __version__, events
from crystalline.model import checkpoints
from crystalline.model.packed import ABOUT
from crystalline.model.shape import Shape
from crystalline.run_folder import RunFolder, read_json

STATE = "state.json"  # of a checkpoint


def about(folder: Path, name: str, license_: str | None) -> dict[str, Any]:
    """Of the model in a checkpoint folder. license_: if it is stated now; else what was stated before.

    It holds nothing of the machine or its paths, so that it can be given away.
    """
    recipe = checkpoints.read_recipe(folder)
    known = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    run = RunFolder(folder.parent.parent)
    start = run.start / ABOUT
    before = read_json(start) if not known and start.exists() else {}
    training = known.get("training") or _training(folder, run, recipe)
    return {
        "name": name,
        "license": license_ or known.get("license") or before.get("license"),
        "origin": known.get("origin") or before.get("origin"),
        "parameters": Shape(**recipe["shape"]).parameters,
        "vocabulary": recipe["shape"]["vocabulary"],
        "training": training,
        "crystalline": known.get("crystalline", __version__),
    }


def _training(folder: Path, run: RunFolder, recipe: dict[str, Any]) -> dict[str, Any]:
    settings, step = recipe["settings"], checkpoints.step_of(folder)
    found: dict[str, Any] = {"steps": step}
    if (folder / STATE).exists():
        found["tokens"] = read_json(folder / STATE).get("tokens")
    found |= {
        "text_bytes": recipe["text"].get("bytes"),
        "text_tokens": recipe["text"].get("tokens"),
        "seed": settings["training"]["seed"],
        "optimizer": settings["optimizer"]["name"],
        "precision": settings["training"]["precision"],
        "bits_per_byte": None,
    }
    if run.events.exists():
        for event in events.read(run.events, "training.evaluation"):
            if event["step"] <= step:
                found["bits_per_byte"] = event["bits_per_byte"]
    return found


def card(facts: dict[str, Any], shape: Shape, precision: str) -> str:
    """A model card (README.md) as Hugging Face shows it."""
    lines = ["---"]
    if license_ := facts["license"]:
        plain = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license_)
        lines += [f"license: {license_}"] if plain else ["license: other", f"license_name: {_quoted(license_)}"]
    lines += ["library_name: transformers", "pipeline_tag: text-generation", "tags:", "- crystalline", "---", ""]
    t = facts["training"]
    rows = {
        "parameters": f"{facts['parameters']:,}",
        "layers, width": f"{shape.layers}, {shape.width}",
        "heads": f"{shape.heads} ({shape.kv_heads} for keys and values) of width {shape.head_width}",
        "vocabulary": f"{shape.vocabulary:,}, byte-level BPE",
        "context": f"{shape.context:,} tokens",
        "weights": precision,
        "training": _told(t),
        "held-out text": f"{t['bits_per_byte']:.4f} bits per byte" if t.get("bits_per_byte") else "",
        "started from": facts["origin"] or "",
        "licence": facts["license"] or "not stated",
    }
    lines += [f"# {facts['name']}", "", "A language model made with crystalline. Its form is Qwen3's.", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items() if value), ""]
    lines += [
        "It continues text like that it was trained on. It was not taught to follow instructions; a chat is written",
        "as paragraphs, and the answer is the next one.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        'inputs = tokenizer("The ", return_tensors="pt")',
        "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=50)[0], skip_special_tokens=True))",
        "```",
        "",
    ]
    return "\n".join(lines)


def _told(training: dict[str, Any]) -> str:
    told = [f"{training['steps']:,} steps"] if training.get("steps") else []
    if training.get("tokens"):
        told.append(f"{training['tokens']:,} tokens")
    if training.get("text_bytes"):
        told.append(f"a text of {training['text_bytes'] / 1e6:,.2f} MB")
    if told:
        told += [f"{training['optimizer']}, {training['precision']}, seed {training['seed']}"]
    return ", ".join(told)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _quoted(text: str) -> str:
    return '"' + re.sub(r"[^ -!#-\[\]-~]", "?", text) + '"'
