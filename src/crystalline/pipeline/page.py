"""The report of a run as one HTML document: no script, no network, nothing beside it; light, dark and on paper."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crystalline.pipeline import curves, spheres
from crystalline.pipeline.curves import Course, number
from crystalline.pipeline.markup import clean

if TYPE_CHECKING:
    from crystalline.pipeline.report import Report

MOST_ROWS = 60  # of the table behind the curves
MOST_EVALUATIONS = 60
MOST_SAMPLES = 12
MOST_NOTES = 200
SHOWN_ELSEWHERE = {"v", "seq", "time", "kind", "step", "peak_flops", "flops_per_token", "crystalline"}  # of events
MOST_TEXT = 4000  # characters of a sample or a settings file

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b2129;--soft:#5a6572;--faint:#e3e7ec;--panel:#f6f8fa;
--line:#1f659f;--band:#bcd5ea;--good:#1a7f4b;--warn:#9a6200}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6eaef;--soft:#9aa6b3;--faint:#2b323b;--panel:#1b2027;
--line:#6fb3ea;--band:#264a6b;--good:#5ec48f;--warn:#e0a94a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2.8rem 0 .9rem;padding-bottom:.3rem;border-bottom:1px solid var(--faint)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.4rem 0 .9rem;max-width:46rem}
.soft{color:var(--soft)}.small{font-size:.87rem}
.state{display:inline-block;border:1px solid currentColor;border-radius:1rem;padding:0 .6rem;font-size:.85rem;
vertical-align:.2em;margin-left:.5rem;color:var(--soft)}
.state.training,.state.done{color:var(--good)}.state.paused,.state.stopped{color:var(--warn)}
.key{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.4rem,1fr));margin:1.4rem 0 0;padding:1px 0 0 1px}
.key div{border:1px solid var(--faint);margin:-1px 0 0 -1px;padding:.7rem .9rem}
.key dt{font-size:.8rem;color:var(--soft)}
.key dd{margin:0;font-size:1.3rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.3}
.key dd small{font-size:.8rem;font-weight:400;color:var(--soft)}
figure{margin:0 0 1.6rem;break-inside:avoid}
figcaption{font-size:.9rem;margin-bottom:.3rem}
figcaption b{font-weight:600}figcaption span{display:block;font-size:.92em}
.wide{overflow-x:auto}
.chart{display:block;width:100%;height:auto;font-size:12px;overflow:visible}
@media screen and (max-width:44rem){.chart.big{font-size:22px}.chart.big .name{display:none}}
.chart text{fill:var(--soft);font-variant-numeric:tabular-nums}
.grid{stroke:var(--faint);fill:none}.axis,.tick{stroke:var(--soft);fill:none}
.line{stroke:var(--line);stroke-width:1.8;fill:none;stroke-linejoin:round}
.band{fill:var(--band);stroke:var(--band);stroke-width:1}
.dot{fill:var(--line);stroke:var(--paper);stroke-width:1.2}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:0 1.6rem}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);padding-bottom:.4rem;font-size:.9rem}
th,td{text-align:left;padding:.25rem 1.1rem .25rem 0;border-bottom:1px solid var(--faint);vertical-align:top}
th{font-weight:600;color:var(--soft)}tbody th{font-weight:400}
.columns th{width:55%}
.wide+.wide{margin-top:1.4rem}
thead th,td:first-child{white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td.any{overflow-wrap:anywhere;min-width:12rem}
.columns{columns:2 22rem;column-gap:2.5rem}
.columns table{width:100%;margin-bottom:1.3rem;break-inside:avoid}
.columns td{overflow-wrap:anywhere}
pre{background:var(--panel);border:1px solid var(--faint);padding:.75rem .9rem;overflow-x:auto;font-size:.84rem;
line-height:1.45;margin:.4rem 0 1rem;unicode-bidi:isolate;font-family:ui-monospace,"DejaVu Sans Mono",Menlo,monospace}
pre.text{white-space:pre-wrap;overflow-wrap:anywhere}
pre b{font-weight:400;color:var(--soft)}
code{font:.87em ui-monospace,"DejaVu Sans Mono",Menlo,monospace;overflow-wrap:anywhere}
.spheres svg{max-width:100%;height:auto}
@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--faint:#ccc;--panel:#fff;--line:#1f659f;--band:#bcd5ea}
main{max-width:none;padding:0}pre{white-space:pre-wrap;overflow-wrap:anywhere}h2,h3{break-after:avoid}
.wide{overflow:visible}}
"""


def render(report: Report) -> str:
    """The page."""
    parts = [
        _summary(report),
        _curves(report),
        _evaluations(report),
        _samples(report),
        _spheres(report),
        _notes(report),
        _recipe(report),
        _text(report),
        _machine(report),
        _repeat(report),
        _numbers(report),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        # Should something ever slip through: the page may load nothing and run nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="crystalline {clean(report.version)}">'
        f"<title>{clean(report.name)}: training report</title><style>{STYLE}</style></head>\n<body><main>"
        f"{''.join(part for part in parts if part)}</main></body></html>\n"
    )


# --- the parts, from the top of the page down ---------------------------------------------------------------


def _summary(report: Report) -> str:
    facts, shape, courses = report.facts, report.shape, report.history.courses()
    seconds = float(np.nansum(courses["seconds"].y))
    told = [
        ("held out", _or_none(facts["bits_per_byte"], "{:.4f} <small>bits per byte</small>")),
        ("perplexity, held out", _or_none(facts["held_out_perplexity"], "{:.4g}")),
        ("training loss", _or_none(facts["loss"], "{:.4f} <small>nats per token</small>")),
        ("steps", _steps_done(facts)),
        ("tokens seen", _or_none(facts["tokens"], "{}", number)),
        ("parameters", _or_none(shape.get("parameters"), "{}", number)),
        ("time in steps", _span(seconds) if seconds else ""),
        ("speed, median", _speed(courses["tokens_per_second"])),
        ("share of matrix peak", _peak_share(report, courses["tokens_per_second"])),
        ("memory", _or_none(facts["memory"], "{:,.0f} <small>MB</small>", lambda value: value / 1e6)),
    ]
    tiles = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in told if value)
    what = "A language model trained from nothing on one's own text."
    if report.recipe:
        settings = report.recipe["settings"]
        what = (
            f"A language model of {number(shape['parameters'])} parameters ({shape['layers']} layers, width "
            f"{shape['width']}, context {shape['context']}, vocabulary {shape['vocabulary']:,}), trained from "
            f"nothing with {settings['optimizer']['name']} in {settings['training']['precision']}, seed "
            f"{settings['training']['seed']}."
        )
    elif facts["state"] == "new":
        what = "This run has been made and not started yet."
    guard = []
    if facts["drops"]:
        guard.append(f"{facts['drops']:,} steps were dropped because their loss or gradient could not be used.")
    if facts["rollbacks"]:
        guard.append(f"Training went back to an earlier checkpoint {facts['rollbacks']:,} times.")
    return (
        f'<header><h1>{clean(report.name)}<span class="state {facts["state"]}">{facts["state"]}</span></h1>'
        f"<p>{clean(what)} {' '.join(guard)}</p>"
        f'<p class="soft small">Report of {_moment(report.made)} UTC, made by crystalline {clean(report.version)} '
        "from the run's own record.</p>" + (f'<dl class="key">{tiles}</dl>' if tiles else "") + "</header>"
    )


def _curves(report: Report) -> str:
    history = report.history
    courses = history.courses()
    steps = len(courses["loss"].x)
    if steps == 0:
        return ""
    window = _window(steps)
    mean = f"line: mean of {window:,} steps; band: every step" if window > 1 else "every step"
    peak = report.recipe["settings"]["optimizer"]["learning_rate"] if report.recipe else 1.0
    rate = Course(courses["rate"].x, courses["rate"].y * peak)
    held_out = Course(
        np.array([e["step"] for e in history.evaluations], np.float64),
        np.array([e["bits_per_byte"] for e in history.evaluations], np.float64),
    )
    big = _figure("loss", "Training loss", "nats per token", courses["loss"], mean, window=window, width=curves.WIDE)
    small = [
        _figure("held-out", "Held-out text", "bits per byte", held_out, "each evaluation", dots=True),
        _figure("norm", "Gradient norm before clipping", "norm", courses["gradient_norm"], mean, window=window),
        _figure("rate", "Learning rate of the matrices", "rate", rate, "embeddings: the same course, another peak"),
        _figure("speed", "Speed", "tokens per second", courses["tokens_per_second"], mean, window=window),
    ]
    return f'<section><h2>Curves</h2>{big}<div class="pair">{"".join(small)}</div></section>'


def _figure(name: str, title: str, unit: str, course: Course, note: str, **how: Any) -> str:
    drawn = curves.chart(name, title, unit, course, **how)
    caption = f'<figcaption><b>{title}</b>, {unit} <span class="soft">{note}</span></figcaption>'
    return f"<figure>{caption}{drawn}</figure>" if drawn else ""


def _evaluations(report: Report) -> str:
    rows = [
        [
            f"{e['step']:,}",
            f"{e['bits_per_byte']:.4f}",
            f"{e['cross_entropy']:.4f}",
            _perplexity(e),
            number(e["tokens"]),
        ]
        for e in _some(report.history.evaluations, MOST_EVALUATIONS)
    ]
    head = ["step", "bits per byte", "cross-entropy, nats per token", "perplexity", "tokens measured"]
    parts = []
    if rows:
        parts.append(_table("While training, on the beginning of the held-out text", head, rows))
    if report.scores:
        whole = [
            [
                f"{s['step']:,}",
                f"{s['bits_per_byte']:.4f}",
                f"{s['cross_entropy']:.4f}",
                _perplexity(s),
                number(s["tokens"]),
            ]
            for s in report.scores
        ]
        parts.append(_table("By cllm eval, on all of the held-out text", head, whole))
    tables = "".join(f'<div class="wide">{part}</div>' for part in parts)
    return f"<section><h2>Evaluations</h2>{tables}</section>" if parts else ""


def _samples(report: Report) -> str:
    parts = [
        f'<h3>Step {s["step"]:,}</h3><pre class="text"><b>{_shortened(s["prompt"])}</b>{_shortened(s["text"])}</pre>'
        for s in _some(report.history.samples, MOST_SAMPLES)
    ]
    if not parts:
        return ""
    return (
        "<section><h2>Samples over time</h2><p>The beginning, in grey, was given; the rest the model has written at "
        f"that step of its training.</p>{''.join(parts)}</section>"
    )


# What is told of a worker, where it is known: field, heading, how it is written.
SPHERE_COLUMNS = (
    ("number", "sphere", "{}"), ("state", "state", "{}"), ("share", "busy share", "{:.0%}"),
    ("positions", "positions", "{:,}"), ("tokens", "tokens", "{:,}"), ("loss", "loss", "{:.3f}"),
    ("steals", "taken over", "{:,}"), ("busy", "computing, s", "{:,.1f}"), ("update", "updating, s", "{:,.1f}"),
    ("idle", "idle, s", "{:,.1f}"), ("sync", "waiting, s", "{:,.1f}"), ("messages", "messages", "{:,}"),
    ("errors", "errors", "{:,}"), ("deaths", "deaths", "{:,}"), ("core", "core", "{}"),
    ("memory", "memory, MB", "{:,.0f}"),
)  # fmt: skip


def _spheres(report: Report) -> str:
    tree = report.tree
    if not tree["spheres"]:
        return ""
    known = [column for column in SPHERE_COLUMNS if any(s.get(column[0]) is not None for s in tree["spheres"])]
    rows = []
    for sphere in tree["spheres"]:
        values = {**sphere, "memory": sphere["memory"] / 1e6 if sphere.get("memory") else None}
        rows.append([clean(_or_none(values.get(name), form)) for name, _, form in known])
    told = "Workers as last recorded; times and counts since training was last started."
    table = _table(told, [heading for _, heading, _ in known], rows)
    return (
        "<section><h2>Spheres</h2><p>Each step consists of the same positions, drawn as spheres that touch Node "
        "Zero, the process that hands them out. Who computes which does not change the weights.</p>"
        f'<figure class="spheres">{spheres.svg(tree)}</figure><div class="wide">{table}</div></section>'
    )


def _notes(report: Report) -> str:
    history = report.history
    rows = [[_moment(e.get("time")), _step(e), clean(_kind(e)), clean(_details(e))] for e in history.notes]
    if history.checkpoints:
        last = history.checkpoints[-1]
        told = f"{len(history.checkpoints):,} saved, the last as {last.get('folder', '')}"
        rows.append([_moment(last.get("time")), _step(last), "checkpoints", clean(told)])
    if not rows:
        return ""
    shown = _some(rows, MOST_NOTES)
    left_out = f" {len(rows) - len(shown):,} of {len(rows):,} are left out." if len(shown) < len(rows) else ""
    table = _table(f"Times are UTC.{left_out}", ["time", "step", "event", ""], shown, plain={0, 2, 3})
    return f'<section><h2>Events of note</h2><div class="wide">{table}</div></section>'


def _recipe(report: Report) -> str:
    if not report.recipe:
        text = f"<pre>{_shortened(report.settings_text)}</pre>" if report.settings_text else ""
        return f"<section><h2>Settings</h2>{text}</section>" if text else ""
    settings = report.recipe["settings"]
    derived = ((name, value) for name, value in report.shape.items() if name not in settings["model"])
    tables = [_pairs("shape", derived)]
    for section, values in settings.items():
        tables.append(_pairs(section, ((name, value) for name, value in values.items() if value not in (None, []))))
    asked = _shortened(report.settings_text)
    return (
        '<section><h2>Recipe</h2><p>Every choice as it was settled when the run began.</p><div class="columns">'
        f"{''.join(tables)}</div><h3>What was asked for (crystalline.toml)</h3><pre>{asked}</pre></section>"
    )


def _text(report: Report) -> str:
    rows: list[tuple[str, Any]] = []
    if report.text:
        documents, size, files = report.text["documents"], report.text["bytes"], report.text["files"]
        rows += [
            ("files read", f"{files['read']:,}"),
            ("documents", f"{documents['train']:,} to train on, {documents['held_out']:,} held out"),
            ("removed", ", ".join(f"{n:,} {reason}" for reason, n in documents["removed"].items() if n) or "none"),
            ("bytes", f"{size['train']:,} to train on, {size['held_out']:,} held out"),
            ("fingerprint of the sources", report.text.get("fingerprint", "")),
        ]
    if report.recipe:
        text = report.recipe["text"]
        rows += [("tokens to train on", f"{text['tokens']:,}"), ("SHA-256 of the tokenizer", text["tokenizer"])]
        rows.append(("vocabulary", f"{report.shape['vocabulary']:,}"))
    return f"<section><h2>Text</h2>{_pairs('', rows)}</section>" if rows else ""


def _machine(report: Report) -> str:
    if not report.machine:
        return ""
    machine = dict(report.machine)
    if machine.get("memory"):
        machine["memory"] = f"{machine['memory'] / 1e9:.1f} GB"
    started = report.history.starts[-1] if report.history.starts else {}
    if started.get("peak_flops"):
        machine["matrix peak, measured"] = (
            f"{started['peak_flops'] / 1e9:,.0f} GFLOP/s a worker, {started.get('workers', 1)} workers at the start"
        )
    if started.get("crystalline"):
        machine["crystalline"] = started["crystalline"]
    return f"<section><h2>Machine</h2>{_pairs('', machine.items())}</section>"


def _repeat(report: Report) -> str:
    if not report.repeat:
        return ""
    weights = f"<p>SHA-256 of the weights of {clean(report.checkpoint)}:<br><code>{clean(report.weights)}</code></p>"
    commands = clean("\n".join(report.repeat))
    note = f"<p>{clean(report.repeat_note)}</p>" if report.repeat_note else ""
    return (
        "<section><h2>How to repeat it</h2><p>The same text, settings and kind of machine give the same weights to "
        "the bit, with any number of workers and however often it was interrupted.</p>"
        f"{weights if report.weights else ''}<pre>{commands}</pre>{note}</section>"
    )


def _numbers(report: Report) -> str:
    courses = report.history.courses()
    steps = courses["loss"].x
    if len(steps) == 0:
        return ""
    names = ("loss", "gradient_norm", "rate", "tokens_per_second", "tokens")
    means = curves.smooth(np.nan_to_num(courses["loss"].y), _window(len(steps)))
    rows = []
    for index in _some(range(len(steps)), MOST_ROWS):
        values = [float(courses[name].y[index]) for name in names]
        told = ["not usable" if math.isnan(value) else number(value) for value in values]
        rows.append([f"{steps[index]:,.0f}", told[0], number(float(means[index])), *told[1:]])
    head = ["step", "loss", "loss, mean", "gradient norm", "share of peak rate", "tokens/s", "tokens seen"]
    caption = f"{len(rows)} of {len(steps):,} steps, evenly spaced." if len(rows) < len(steps) else "All steps."
    table = _table(caption, head, rows)
    return f'<section><h2>The numbers behind the curves</h2><div class="wide">{table}</div></section>'


# --- small pieces -------------------------------------------------------------------------------------------


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], plain: Iterable[int] = ()) -> str:
    """A table of numbers, right-aligned but in the columns `plain`. Cells are HTML already, head and caption text."""
    words = set(plain)
    last = len(head) - 1

    def kind(column: int) -> str:
        return "" if column in words else ' class="n"'

    top = "".join(f'<th scope="col"{kind(k)}>{clean(name)}</th>' for k, name in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=any' if k == last and k in words else kind(k)}>{cell}</td>" for k, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><caption>{clean(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _pairs(caption: str, rows: Iterable[tuple[str, Any]]) -> str:
    """A table of names and values, which are text."""
    body = "".join(
        f'<tr><th scope="row">{clean(name)}</th><td>{clean(_shown(value))}</td></tr>' for name, value in rows
    )
    head = f"<caption><b>{clean(caption)}</b></caption>" if caption else ""
    return f"<table>{head}<tbody>{body}</tbody></table>" if body else ""


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000 else str(value)


def _some(found: Sequence[Any], most: int) -> list[Any]:
    """All of them, or `most` evenly spaced, the first and the last among them."""
    if len(found) <= most:
        return list(found)
    return [found[round(k * (len(found) - 1) / (most - 1))] for k in range(most)]


def _window(steps: int) -> int:
    """Steps that the smoothed line is the mean of."""
    return 1 if steps < 40 else max(5, steps // 100)


def _or_none(value: Any, form: str, change: Any = lambda value: value) -> str:
    return "" if value is None else form.format(change(value))


def _perplexity(score: dict[str, Any]) -> str:
    return f"{math.exp(min(score['cross_entropy'], 700.0)):.4g}"


def _steps_done(facts: dict[str, Any]) -> str:
    if not facts["step"]:
        return ""
    return f"{facts['step']:,}" + (f" <small>of {facts['steps']:,}</small>" if facts["steps"] else "")


def _median_speed(course: Course) -> float | None:
    speeds = course.sound.y
    return float(np.median(speeds)) if len(speeds) else None


def _speed(course: Course) -> str:
    return _or_none(_median_speed(course), "{} <small>tokens/s</small>", number)


def _peak_share(report: Report, course: Course) -> str:
    """Model FLOPs utilization of the median speed, with the workers that there were at last."""
    started, speed = report.history.starts[-1:], _median_speed(course)
    if not (started and speed and started[0].get("peak_flops") and started[0].get("flops_per_token")):
        return ""
    workers = len(report.tree["spheres"]) or started[0].get("workers", 1)
    return f"{speed * started[0]['flops_per_token'] / (started[0]['peak_flops'] * workers):.0%}"


def _moment(seconds: float | None) -> str:
    """Date and time, UTC."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds is not None else ""


def _span(seconds: float) -> str:
    """Hours, minutes and seconds, the two that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} <small>s</small>"
    if whole < 3600:
        return f"{whole // 60} <small>min</small> {whole % 60:02d} <small>s</small>"
    return f"{whole // 3600} <small>h</small> {whole % 3600 // 60:02d} <small>min</small>"


def _shortened(text: str) -> str:
    return clean(text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " ...")


def _step(event: dict[str, Any]) -> str:
    return f"{event['step']:,}" if isinstance(event.get("step"), int) else ""


def _kind(event: dict[str, Any]) -> str:
    """ "training.started" -> "training started"."""
    return str(event["kind"]).replace(".", " ").replace("_", " ")


def _details(event: dict[str, Any]) -> str:
    """The fields of an event that are short enough to be read in a table."""
    told = []
    for name, value in event.items():
        if name in SHOWN_ELSEWHERE or isinstance(value, dict):
            continue
        text = number(value) if isinstance(value, float) else _shown(value)
        if value is not None and len(text) <= 160:
            told.append(f"{name.replace('_', ' ')} {text}")
    return ", ".join(told)
