"""The settings of a run: what can be set, within which limits, and where a value came from.

One TOML file per run (`crystalline.toml`), over it the environment (`CLLM_TRAINING_SEED=7`), over that the
flags of the command (`--seed 7`, `--set training.seed=7`). All problems are reported at once, each with the place
it came from and the nearest valid name. A setting that is absent, or "auto", is chosen by the program from
the text and the machine; `cllm plan` shows the choice.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from crystalline.errors import EXIT_USAGE, UserError, from_os_error, suggest

ENVIRONMENT_PREFIX = "CLLM_"
# Variables with the prefix that are no settings.
ENVIRONMENT_OTHER = {"CLLM_LOG_LEVEL", "CLLM_RUN", "CLLM_VENV", "CLLM_KERNELS"}


def _auto_is_none(value: Any) -> Any:
    return None if value == "auto" else value


# "auto" in a file or flag means "choose for me", which is None in the code.
AutoInt = Annotated[int | None, BeforeValidator(_auto_is_none)]
AutoFloat = Annotated[float | None, BeforeValidator(_auto_is_none)]
AutoStr = Annotated[str | None, BeforeValidator(_auto_is_none)]
AutoWorkers = Annotated[Annotated[int, Ge(0), Le(144)] | Literal["free"] | None, BeforeValidator(_auto_is_none)]


PageType = Literal[
    "html", "text", "code", "pdf", "office", "epub", "csv", "json", "xml", "mail", "image", "archive"
]  # fmt: skip


class Section(BaseModel):
    """A table of the settings file; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, strict=True)


class Corpus(Section):
    """Where the text comes from and how it is divided."""

    source: list[str] = Field([], description="folders and files with text, crawls, and websites (https://...)")
    exclude: list[str] = Field([], description="names or patterns to leave out, such as '*.min.js'")
    held_out: float = Field(0.05, gt=0, le=0.5, description="share of the documents kept apart to measure on")
    section_bytes: int = Field(
        65536, ge=1024, le=16_777_216, description="longer files are cut into documents of this size"
    )


class Crawl(Section):
    """Which pages of websites are fetched, and how politely."""

    max_pages: int = Field(10_000, ge=1, description="pages to keep at most")
    depth: int = Field(20, ge=0, le=10_000, description="links from a start page that are followed; 0: none")
    domains: list[str] = Field(
        [], description="stay on these and what is below them; none: the hosts of the start pages"
    )
    allow: list[str] = Field(
        [], description="a URL must begin with, or match, one of these; * is anything, re:... a regular expression"
    )
    deny: list[str] = Field([], description="a URL must not begin with, or match, any of these")
    types: list[PageType] = Field(
        ["html", "text", "pdf", "office", "epub"],
        description="what is kept: html, text, code, pdf, office, epub, csv, json, xml, mail, image, archive",
    )
    sitemaps: bool = Field(
        True, description="also take the URLs in sitemaps (those robots.txt names, or /sitemap.xml) and feeds"
    )
    main_text: bool = Field(True, description="of a web page its main text; false: everything, menus included")
    delay: float = Field(
        1.0, ge=0, le=3600, description="seconds between two requests to a host; more when it asks, or answers slowly"
    )
    per_host: int = Field(1, ge=1, le=64, description="requests to a host at the same time")
    concurrency: int = Field(16, ge=1, le=256, description="requests at the same time, to all hosts")
    timeout: float = Field(30.0, gt=0, le=3600, description="seconds for a page, from the first byte to the last")
    max_bytes: int = Field(20_000_000, ge=1000, description="largest page, also when it is unpacked")
    redirects: int = Field(10, ge=0, le=100, description="redirects in a row that are followed")
    retries: int = Field(3, ge=0, le=100, description="how often a page is tried again")
    backoff: float = Field(
        5.0, ge=0, le=3600, description="seconds until a host that cannot answer is asked again; doubles each time"
    )
    patience: float = Field(600.0, ge=0, description="longest wait, in seconds, for a host that asks for one")
    max_queries: int = Field(200, ge=0, description="addresses that differ only after the ?, as calendars make them")
    again_after: AutoFloat = Field(
        None, ge=0, description="days after which a page is looked at again; auto: when --again says so"
    )
    user_agent: AutoStr = Field(None, min_length=1, description="auto: crystalline/VERSION (+contact)")
    contact: str = Field("", description="URL or mail address for the user agent, so that a site can complain")
    verify_certificates: bool = Field(True, description="refuse sites whose certificate is not valid")


class Extract(Section):
    """How text is taken out of files and pages. A file over a limit is skipped and named."""

    everything: bool = Field(
        False, description="keep menus, page headers, raw JSON and the like too, not only the main text"
    )
    ocr: Literal["auto", "never", "always"] = Field(
        "auto", description="recognise text in images; auto: also on PDF pages that have no text; always: on all"
    )
    languages: AutoStr = Field(
        None, pattern=r"^[A-Za-z0-9_/]+([+,][A-Za-z0-9_/]+)*$",
        description="for recognition, such as eng+deu; auto: those installed, if they are four at most, else eng",
    )  # fmt: skip
    dpi: int = Field(300, ge=72, le=1200, description="resolution at which PDF pages are recognised")
    pages: str = Field(
        "", pattern=r"^(\d+(-\d*)?(,\d+(-\d*)?)*)?$", description="pages of PDFs to read, such as 1-5,8,20-"
    )
    max_file_mb: int = Field(
        512, ge=1, le=65536, description="largest file, except plain text, tables and archives, which have no limit"
    )
    max_expanded_mb: int = Field(8192, ge=1, le=1_048_576, description="most that is unpacked from one archive")
    max_ratio: int = Field(200, ge=2, le=100_000, description="most that an archive may grow when it is unpacked")
    max_members: int = Field(100_000, ge=1, le=100_000_000, description="most files in one archive")
    max_depth: int = Field(5, ge=1, le=50, description="archives and mails inside of each other")
    seconds: float = Field(
        60.0, gt=0, le=86_400, description="processor time for one file, or for each page that is recognised"
    )
    memory_mb: int = Field(2048, ge=512, le=1_048_576, description="memory of the process that reads files")


PersonalData = Literal["email", "phone", "iban", "card", "ip", "key"]


class Clean(Section):
    """What is taken out of the text before anything learns from it."""

    repair: bool = Field(True, description="undo mojibake in prose, such as 'fÃ¼r' for 'für'")
    boilerplate: bool = Field(
        True, description="take out lines of the site (cookie notices, menus) and licences of Project Gutenberg"
    )
    languages: list[str] = Field(
        [], description="ISO 639 codes, such as 'en': keep only prose in these, and what no language is certain of"
    )
    quality: Literal["auto", "web", "files", "off"] = Field(
        "auto", description="rules for prose: strict for web pages, lenient for files; auto: by the source"
    )
    mask: list[PersonalData] = Field(
        ["email", "phone", "iban", "card", "ip", "key"],
        description="personal data to replace by <email>, <phone> ...; in source code only email and key",
    )
    near_duplicates: float = Field(
        0.75, ge=0, le=1, description="Jaccard index of runs of five words from which one of two texts goes; 0: never"
    )
    against: list[str] = Field(
        [], description="run folders: what their corpora have, in these words or nearly, is left out"
    )
    workers: AutoInt = Field(None, ge=1, le=1024, description="processes; auto: one a core. The result is the same")


class Tokenizer(Section):
    """How text is cut into tokens."""

    vocabulary_size: AutoInt = Field(
        None, ge=300, le=200_000, description="number of tokens; auto: from the amount of text"
    )
    min_frequency: int = Field(2, ge=1, description="how often a pair must occur to become a token")


class Model(Section):
    """The shape of the network. `size` sets the rest; each can be set by itself."""

    size: str = Field("auto", description="1M, 2M, 4M, 8M, 16M, 30M, 60M, 125M, 350M, 1B; auto: from the time")
    layers: AutoInt = Field(None, ge=1, le=200, description="transformer blocks")
    width: AutoInt = Field(None, ge=16, le=16384, description="size of the residual stream")
    heads: AutoInt = Field(None, ge=1, le=256, description="attention heads for queries")
    kv_heads: AutoInt = Field(None, ge=1, le=256, description="attention heads for keys and values")
    head_width: AutoInt = Field(None, ge=8, le=512, description="size of one attention head, even")
    hidden: AutoInt = Field(None, ge=16, le=65536, description="inner size of the feed-forward part")
    context: AutoInt = Field(None, ge=8, le=131_072, description="tokens the model sees at once")
    rope_base: float = Field(10_000.0, gt=1, description="base of the rotary position frequencies")
    qk_norm: bool = Field(True, description="norm queries and keys in every head, as Qwen3 does; false: as Llama")
    norm_epsilon: float = Field(1e-6, gt=0, le=0.1, description="added to the mean square in every norm")
    factor_scale: float = Field(
        1.0, ge=0, le=10, description="weight of the prime-factor vectors in an embedding; 0: plain"
    )
    rotary: Literal["standard", "golden", "clock"] = Field(
        "standard",
        description="frequencies of the rotary positions: powers of a base, of the golden ratio, of a clock",
    )
    phases: list[Literal["lattice", "golden", "clock"]] = Field(
        [], description="learned biases of attention, at first 0: by the tokens' spiral angles, by distance"
    )
    value_embeddings: bool = Field(False, description="add a vector of the token to the values of every other layer")
    ngram_rows: int = Field(
        0, ge=0, le=100_000_000, description="vectors for pairs of neighbouring tokens, in two hash tables; 0: none"
    )


class Training(Section):
    """How long to train, on what grain, and how often to look."""

    seed: int = Field(0, ge=0, lt=2**63, description="the same seed gives the same model")
    steps: AutoInt = Field(None, ge=1, description="optimizer steps in all")
    minutes: AutoFloat = Field(
        None, gt=0, description="time to spend, made into steps by a short probe when training starts"
    )
    epochs: AutoFloat = Field(None, gt=0, description="passes over the training text")
    tokens: AutoInt = Field(None, ge=1, description="tokens to train on in all")
    patience: int = Field(
        0, ge=0, le=1000, description="end after so many evaluations in a row without a better one; 0: never"
    )
    positions: Literal[12, 144] = Field(
        12, description="independent micro-batches of a step; their gradients are summed exactly"
    )
    micro_batch: AutoInt = Field(None, ge=1, le=4096, description="sequences in one position")
    accumulation: int = Field(1, ge=1, le=4096, description="micro-batches in one position")
    workers: AutoWorkers = Field(
        None,
        description="worker processes; auto: one a core, or one a GPU; free: as many as there are cores that other "
        "processes leave free, changing with them; 0: none, the main process computes",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where positions are computed; auto: cpu, as long as cuda has not been tried on a GPU"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the products; weights are always kept in fp32; fp16: for GPUs without bf16"
    )
    evaluate_every: AutoInt = Field(None, ge=1, description="steps between evaluations")
    evaluate_tokens: int = Field(65_536, ge=256, description="held-out tokens in each of them")
    sample_every: AutoInt = Field(None, ge=1, description="steps between samples")
    sample_prompt: AutoStr = Field(None, description="how samples begin; auto: from held-out text")
    discover_roots: int = Field(
        0,
        ge=0,
        le=100,
        description="how often to look for better roots of tokens; held-out text decides on each change",
    )
    tensorboard: bool = Field(False, description="also write RUN/tensorboard, for the tensorboard program")


class Optimizer(Section):
    """How weights change."""

    name: Literal["muon", "adamw", "sgd"] = Field(
        "muon", description="for the matrices inside the blocks; the rest uses AdamW (or SGD)"
    )
    learning_rate: AutoFloat = Field(None, gt=0, le=100, description="peak rate of the matrices")
    embedding_learning_rate: AutoFloat = Field(
        None, gt=0, le=100, description="peak rate of the embeddings and gains"
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="of Muon and SGD")
    momentum_warmup: int = Field(
        300, ge=0, description="updates over which Muon's momentum rises from 0.85 to its value; 0: none"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW, average of the gradient")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW, average of its square")
    epsilon: float = Field(1e-8, gt=0, description="AdamW, added to the divisor")
    weight_decay: float = Field(0.1, ge=0, le=10, description="on matrices")
    clip_norm: float = Field(1.0, ge=0, description="largest gradient norm; 0: no clipping")


class Objective(Section):
    """What is minimised besides the cross-entropy, in the first part of the run. Evaluations never count it."""

    name: Literal["cross-entropy", "prefix", "roots", "kernel"] = Field(
        "cross-entropy",
        description="nothing besides; or to predict the token that begins the target, its root, or what is similar",
    )
    weight: float = Field(0.25, ge=0, le=10, description="of the second part at the start")
    until: float = Field(2 / 3, gt=0, le=1, description="share of the steps after which its weight has fallen to 0")


class Scheduler(Section):
    """How the learning rate moves over the run."""

    name: Literal["linear", "cosine", "constant", "step"] = Field(
        "linear", description="shape of the cool-down; step: falls by step_factor at each of step_at instead"
    )
    warmup: float = Field(0.02, ge=0, le=0.9, description="share of the steps spent rising from 0")
    cooldown: float = Field(0.5, ge=0, le=1, description="share of the steps spent falling to the minimum rate")
    minimum: float = Field(0.0, ge=0, le=1, description="lowest rate, as a share of the peak")
    step_at: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.75], description="for step: shares of the run, between 0 and 1, at which the rate falls"
    )
    step_factor: float = Field(0.1, gt=0, lt=1, description="for step: what the rate is multiplied by there")


class Checkpointing(Section):
    """When the work is saved."""

    every_minutes: float = Field(1.0, gt=0, description="time between checkpoints")
    every_steps: AutoInt = Field(None, ge=1, description="steps between checkpoints, if set")
    keep: int = Field(3, ge=2, le=1000, description="how many of the newest checkpoints stay on disk")
    keep_every: AutoInt = Field(None, ge=1, description="save each so many steps, and keep these for good")
    keep_best: bool = Field(
        False, description="save whenever evaluated, and keep the best as checkpoints/best; always with patience"
    )
    rollback_every: AutoInt = Field(
        None, ge=1, description="steps between those a rollback may go to; auto: as every_steps or every_minutes"
    )


class Generation(Section):
    """How the model continues a text, unless a flag says otherwise."""

    max_tokens: int = Field(200, ge=1, description="longest answer")
    temperature: float = Field(0.8, ge=0, le=10, description="0: always the most likely token")
    top_k: int = Field(0, ge=0, description="draw from the k most likely tokens; 0: all")
    top_p: float = Field(0.95, gt=0, le=1, description="draw from the smallest set of this probability")
    min_p: float = Field(0.0, ge=0, le=1, description="leave out tokens under this share of the best")
    repetition_penalty: float = Field(1.0, ge=0.1, le=10, description="above 1: repeat less")
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="of the weights while it generates; auto: the one of the training; int8: half of bf16's memory",
    )


def _as_list(value: Any) -> Any:
    return [part.strip() for part in str(value).split(",") if part.strip()] if isinstance(value, str | int) else value


class Serving(Section):
    """How `cllm serve` answers. They are read when it starts, from the first model that it is given."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen at; 0.0.0.0: all of this machine")
    port: int = Field(8080, ge=0, le=65535, description="0: any that is free")
    keys: Annotated[list[str], BeforeValidator(_as_list)] = Field(
        [], description="who has one of these may ask; none: everybody who reaches the port"
    )
    key_file: str = Field("", description="a file with more of them, one in a line")
    cors: list[str] = Field([], description="web pages that may ask, such as http://localhost:3000; *: all")
    slots: int = Field(8, ge=1, le=1024, description="texts that are written at the same time, of each model")
    queue: int = Field(64, ge=0, le=1_000_000, description="texts that may wait for a slot; more are refused (429)")
    timeout: float = Field(
        300.0, gt=0, le=86_400, description="seconds for a request; a text that is not done by then ends there"
    )
    max_tokens: int = Field(4096, ge=1, description="longest answer that may be asked for")
    max_body_bytes: int = Field(1_000_000, ge=1000, le=1_000_000_000, description="largest request (413)")
    long_prompts: Literal["refuse", "cut"] = Field(
        "refuse", description="a prompt that is longer than the context: refuse it (400), or use its last part"
    )
    reload_seconds: float = Field(
        2.0, ge=0, le=86_400, description="how often to look for a newer checkpoint of the run; 0: never"
    )
    grace: float = Field(10.0, ge=0, le=3600, description="seconds that texts have to end when the server is stopped")


class Settings(Section):
    """All sections."""

    corpus: Corpus = Corpus()
    crawl: Crawl = Crawl()
    extract: Extract = Extract()
    clean: Clean = Clean()
    tokenizer: Tokenizer = Tokenizer()
    model: Model = Model()
    training: Training = Training()
    optimizer: Optimizer = Optimizer()
    objective: Objective = Objective()
    scheduler: Scheduler = Scheduler()
    checkpointing: Checkpointing = Checkpointing()
    generation: Generation = Generation()
    serving: Serving = Serving()


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings of a run: file < environment < overrides.

    file: a TOML file, or None for the defaults.
    environment: by default this process's.
    overrides: {"section.key": value}, from flags. A None value is no override.
    Raises UserError (exit code 2) that lists every problem.
    """
    values: dict[str, dict[str, Any]] = {}
    origin: dict[str, str] = {}
    problems: list[str] = []
    if file is not None:
        for section, table in _read_toml(file).items():
            if not isinstance(table, dict):
                problems.append(f"{file}: '{section}' must stand in a [section]")
                continue
            for key, value in table.items():
                _put(values, origin, f"{section}.{key}", value, str(file))
    environment = os.environ if environment is None else environment
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in ENVIRONMENT_OTHER:
            section, _, key = variable[len(ENVIRONMENT_PREFIX) :].lower().partition("_")
            _put(values, origin, f"{section}.{key}", _parse(text), f"environment {variable}")
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(values, origin, name, value, "the command line")
    problems += _unknown_names(values, origin)
    try:
        settings = Settings.model_validate(_known(values))
        if not problems:
            return settings
    except ValidationError as error:
        for item in error.errors():
            name = ".".join(str(part) for part in item["loc"][:2])
            problems.append(f"{origin.get(name, name)}: {name} = {item['input']!r}: {item['msg']}")
    raise UserError(
        "the settings cannot be used",
        "".join(f"\n    - {problem}" for problem in problems),
        "correct these, then give the same command again",
        EXIT_USAGE,
    )


def parse_assignment(text: str) -> tuple[str, Any]:
    """("section.key", value) of a `--set section.key=value` flag."""
    name, equals, value = text.partition("=")
    if not equals or "." not in name:
        raise UserError(
            f"could not read --set {text}",
            "it has not the form section.key=value",
            "for example: --set training.seed=7",
            EXIT_USAGE,
        )
    return name.strip(), _parse(value.strip())


def to_toml(settings: Settings) -> str:
    """The settings that differ from the defaults, as the text of a TOML file."""
    import json

    lines: list[str] = []
    for section, table in settings.model_dump(exclude_defaults=True).items():
        lines.append(f"[{section}]")
        for key, value in table.items():
            # JSON's strings, numbers, booleans and arrays of strings are valid TOML as they are, but for DEL.
            text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
            lines.append(f"{key} = {text}")
        lines.append("")
    return "\n".join(lines)


def describe() -> list[tuple[str, str, str, str]]:
    """(name, default, limits, meaning) of every setting, for the reference and for help."""
    rows = []
    for section, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, Section)
        for key, info in field.annotation.model_fields.items():
            signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
            kinds = getattr(info.annotation, "__args__", ())  # of a union; each may have limits of its own
            limits = [
                f"{sign} {getattr(rule, name)}"
                for rule in [*info.metadata, *(rule for kind in kinds for rule in getattr(kind, "__metadata__", ()))]
                for name, sign in signs.items()
                if hasattr(rule, name)
            ]
            choices = getattr(info.annotation, "__args__", ())
            if choices and all(isinstance(c, str | int) for c in choices):
                limits = [" or ".join(str(c) for c in choices)]
            default = "auto" if info.default is None else str(info.default)
            rows.append((f"{section}.{key}", default, ", ".join(limits), info.description or ""))
    return rows


def reference() -> str:
    """The page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "In `RUN/crystalline.toml`, one table a section; over the file the environment (`CLLM_TRAINING_SEED=7`),",
        "over that flags (`--set training.seed=7`). Generated by `python -m crystalline.settings`.",
    ]
    section = ""
    for name, default, limits, meaning in describe():
        if name.split(".")[0] != section:
            section = name.split(".")[0]
            purpose = (type(getattr(Settings(), section)).__doc__ or "").splitlines()[0]
            lines += [
                "",
                f"## [{section}]",
                "",
                purpose,
                "",
                "| setting | default | limits | meaning |",
                "|---|---|---|---|",
            ]
        lines.append(f"| `{name.split('.')[1]}` | {default} | {limits} | {meaning} |")
    return "\n".join(lines) + "\n"


def _put(values: dict[str, dict[str, Any]], origin: dict[str, str], name: str, value: Any, where: str) -> None:
    section, _, key = name.partition(".")
    values.setdefault(section, {})[key] = value
    origin[name] = where


def _names() -> dict[str, set[str]]:
    """section -> the names of its settings."""
    defaults = Settings()
    return {section: set(type(getattr(defaults, section)).model_fields) for section in Settings.model_fields}


def _known(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`values` without the names that do not exist: the rest is still checked, to report all at once."""
    names = _names()
    return {
        section: {key: value for key, value in table.items() if key in names[section]}
        for section, table in values.items()
        if section in names
    }


def _unknown_names(values: dict[str, dict[str, Any]], origin: dict[str, str]) -> list[str]:
    names = _names()
    problems = []
    for section, table in values.items():
        for key in table:
            name = f"{section}.{key}"
            if section not in names:
                problems.append(f"{origin[name]}: no section [{section}]; {suggest(section, names)}")
            elif key not in names[section]:
                problems.append(f"{origin[name]}: no setting {name}; {suggest(key, names[section])}")
    return problems


def _parse(text: str) -> Any:
    """The TOML value written as `text`; text that is none is a string."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(
            f"could not read the settings {file}",
            "the file does not exist",
            "give the path of a TOML file",
            EXIT_USAGE,
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"could not read the settings {file}",
            f"it is not valid TOML: {error}",
            "correct that line",
            EXIT_USAGE,
        ) from error
    except OSError as error:
        raise from_os_error(error, f"read the settings {file}") from error


if __name__ == "__main__":
    print(reference(), end="")
