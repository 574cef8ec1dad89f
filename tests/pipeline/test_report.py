"""The report of a run: one page that is whole in every state of the run, true to the events, and safe to open."""

import html
import json
import re
import shlex
import shutil
import signal
from html.parser import HTMLParser

import numpy as np
import pytest

from commands import last_step, wait_for
from crystalline.errors import EXIT_FAILED, EXIT_OK, EXIT_SYSTEM
from crystalline.pipeline import page, report
from crystalline.pipeline.report import History

VOID = {"meta", "br", "stop"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order, no id is there twice."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.tags, self.text = [], [], [], [], ""
        self.references = []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert set(self.references) <= set(self.ids), "what labels a picture is there"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name == "aria-labelledby":
                self.references += value.split()
            assert not name.startswith("on"), "no script in attributes"
            assert name not in ("src", "href", "srcset", "action"), "nothing is loaded"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def made(run):
    return Page(report.report(run))


def test_a_finished_run_has_every_part(tiny_run, cllm):
    found = made(tiny_run)
    assert found.headings == [
        "Curves", "Evaluations", "Samples over time", "Spheres", "Events of note", "Recipe", "Text", "Machine",
        "How to repeat it", "The numbers behind the curves",
    ]  # fmt: skip
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert found.tags.count("svg") == 6, "five curves and the spheres"
    digest = cllm("hash", tiny_run)[1].strip()
    for words in (digest, "step-00000006", "muon", "source", "torch"):
        assert words in found.text


def test_the_numbers_are_those_of_the_events(made_up):
    made_up.settle()
    made_up.add("training.started", step=0, steps=100, workers=2, peak_flops=1e9, flops_per_token=2e5, machine={})
    made_up.steps(1, 100)
    made_up.add("training.evaluation", step=100, bits_per_byte=1.5, cross_entropy=3.0, tokens=4321, bytes=26)
    made_up.add("training.sample", step=100, prompt="Once", text=" upon a time")
    made_up.add("training.spheres", step=100, memory=123e6, spheres=[
        {"number": 0, "places": [0, 1], "positions": 1200, "busy": 3.0, "update": 0.0, "idle": 1.0, "memory": 5e6},
        {"number": 1, "places": [2], "positions": 7, "tokens": 99_999},
    ])  # fmt: skip
    text = re.sub(r"\s+", " ", made(made_up.root).text)
    for words in (
        "1.5000 bits per byte", "20.09", "4.0000 nats per token", "100 of 100", "38,400", "50 s", "768 tokens/s",
        "8%", "123 MB", "4,321", "Once upon a time", "99,999", "75%", "1,200",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("state", ["new", "prepared", "stopped", "failed", "damaged"])
def test_a_run_in_any_state_has_a_page(new_run, run, cllm, state):
    if state == "prepared":
        assert cllm("plan", new_run)[0] == EXIT_OK
    elif state == "stopped":
        shutil.copytree(run, new_run, dirs_exist_ok=True)
        lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
        (new_run / "events.jsonl").write_text("".join(lines[:-6]) + lines[-6][:20])
    elif state == "failed":
        assert cllm("run", new_run, "--set", "model.heads=3", "--set", "model.kv_heads=2")[0] != EXIT_OK
    elif state == "damaged":
        shutil.copytree(run, new_run, dirs_exist_ok=True)
        for file in new_run.glob("checkpoints/*/model.safetensors"):
            file.write_bytes(b"no")
        (new_run / "corpus" / "report.json").write_text("{")
        shutil.rmtree(new_run / "tokenizer")
    code, out, err = cllm("report", new_run)
    assert code == EXIT_OK, err
    assert out == f"wrote {new_run / 'report.html'}\n"
    found = Page((new_run / "report.html").read_text("utf-8"))
    if state == "new":
        assert "has been made and not started" in found.text
    if state == "damaged":
        assert "not known: " in found.text


def test_a_run_at_work_has_a_page_and_is_not_disturbed(new_run, start, cllm, tiny_run):
    with start("run", new_run, "--steps", "100000", "--quiet") as command:
        wait_for(lambda: last_step(new_run) >= 6)
        found = made(new_run)
        assert "training" in found.text[:400]
        step = last_step(new_run)
        wait_for(lambda: last_step(new_run) > step)
        command.kill(signal.SIGINT)
        command.wait()


def test_nothing_in_a_run_can_become_markup(tmp_path):
    from made_up import MadeUpRun

    evil = "<script>alert(1)</script>\"'&\x1b[31m\ud800"
    run = MadeUpRun(tmp_path / "<b>evil&")
    run.settle(**{"corpus.source": ["/<i>a"], "training.sample_prompt": "<u>"})
    run.steps(1, 3)
    run.add("training.started", step=0, steps=100, machine={"<x>": "<y>"})
    run.add("training.sample", step=3, prompt="<pre>", text="</pre>" + evil.replace("\ud800", ""))
    run.add_raw({"v": 1, "seq": 99, "time": 1.0, "kind": "training.<kind>", "step": 3, "<field>": evil})
    run.folder.settings.write_text("# </pre><img>\n")
    text = report.report(run.root)
    found = Page(text)
    for tag in ("script", "i", "u", "img", "x", "y", "field"):
        assert tag not in found.tags
    assert "<script>alert(1)" in found.text
    text.encode("utf-8")


def test_steps_that_were_given_up_are_not_shown():
    history = History()
    for step in [*range(1, 11), *range(6, 9)]:
        facts = {
            "loss": float(len(history.evaluations)),
            "gradient_norm": 1.0,
            "rate": 1.0,
            "tokens": step,
            "seconds": 1.0,
        }
        history.take({"kind": "training.step", "step": step, **facts})
        history.take({"kind": "training.evaluation", "step": step, "bits_per_byte": 1.0, "cross_entropy": 1.0})
    assert history.courses()["loss"].x.tolist() == list(range(1, 9))
    assert [e["step"] for e in history.evaluations] == list(range(1, 9))
    history.take({"kind": "training.rollback", "step": 8, "to": 4})
    assert history.courses()["loss"].x.tolist() == [1, 2, 3, 4]
    assert [e["step"] for e in history.evaluations] == [1, 2, 3, 4]
    assert [e["kind"] for e in history.notes] == ["training.rollback"]


def test_speed_is_new_tokens_by_seconds():
    history = History()
    for step, tokens, seconds in ((1, 100, 2.0), (2, 300, 4.0), (3, 300, 0.0)):
        facts = {"loss": None, "gradient_norm": 1.0, "rate": 1.0, "tokens": tokens, "seconds": seconds}
        history.take({"kind": "training.step", "step": step, **facts})
    assert history.courses()["tokens_per_second"].sound.y.tolist() == [50.0, 50.0]
    assert np.isnan(history.courses()["loss"].y).all()


def test_a_hundred_thousand_steps_are_a_small_page(made_up):
    made_up.settle(steps=100_000)
    noise = np.random.default_rng(0).normal(size=100_000)
    evaluation = {"bits_per_byte": 1.5, "cross_entropy": 3.0, "tokens": 9, "bytes": 9}

    def written():
        for step in range(1, 100_001):
            loss, slower = 3 + noise[step - 1], abs(noise[step - 1])
            facts = {"loss": loss, "gradient_norm": 1 + slower, "rate": 1.0, "tokens": step * 384}
            yield "training.step", {"step": step, "seconds": 0.1 + slower, **facts}
            if step % 100 == 0:
                yield "training.evaluation", {"step": step, **evaluation}
                yield "training.sample", {"step": step, "prompt": "p", "text": "x" * 5000}
                yield "training.order", {"step": step, "order": "pause"}

    with open(made_up.folder.events, "w") as file:
        for number, (kind, fields) in enumerate(written()):
            file.write(json.dumps({"v": 1, "seq": number, "time": float(number), "kind": kind, **fields}) + "\n")
    text = report.report(made_up.root)
    Page(text)
    assert len(text.encode()) < 1_000_000
    assert text.count("<tr>") < 800
    assert f"{100_000:,}" in text


# --- how to repeat it ---------------------------------------------------------------------------------------


def commands_in(text):
    block = html.unescape(re.search(r"How to repeat it</h2>.*?<pre>(.*?)</pre>", text, re.DOTALL)[1])
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", "").split("\n")]


def test_the_commands_of_the_page_give_the_same_weights(run, cllm, tmp_path, monkeypatch):
    """Also those of a run that was made longer once it was done."""
    assert cllm("run", run, "--steps", "8", "--seed", "0")[0] == EXIT_OK
    digest = cllm("hash", run)[1]
    commands = commands_in(report.report(run))
    monkeypatch.chdir(tmp_path)
    assert [words[:2] for words in commands] == [["cllm", verb] for verb in ("new", "run", "run", "hash")]
    for words in commands:
        code, out, err = cllm(*words[1:])
        assert code == EXIT_OK, err
    assert out == digest


def test_a_length_that_was_changed_on_the_way_is_told(made_up):
    made_up.settle(steps=200)
    made_up.add("training.started", step=0, steps=100)
    made_up.steps(1, 40)
    made_up.add("training.started", step=40, steps=200)
    text = report.report(made_up.root)
    assert "changed from 100 to 200 steps at step 40, before the end" in text
    assert ["cllm", "run", "again", "--steps", "200"] in commands_in(text)


# --- the command ----------------------------------------------------------------------------------------------


def test_where_the_page_goes(tiny_run, cllm, tmp_path):
    code, out, err = cllm("report", tiny_run, "--to", tmp_path / "page.html", "--quiet")
    assert (code, out, err) == (EXIT_OK, "", "")
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    code, _, err = cllm("report", tiny_run, "--to", tmp_path / "no" / "page.html")
    assert code == EXIT_SYSTEM
    assert "\n  fix: " in err
    assert cllm("report", tmp_path / "nothing")[0] == EXIT_FAILED


def test_the_page_may_load_and_run_nothing(tiny_run):
    text = report.report(tiny_run)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "no address, but for the name of SVG"
    assert "@import" not in page.STYLE
    assert "url(" not in page.STYLE
    assert "prefers-color-scheme:dark" in page.STYLE
    assert "@media print" in page.STYLE


@pytest.mark.parametrize(("count", "most", "expected"), [(3, 5, [0, 1, 2]), (100, 3, [0, 50, 99]), (0, 3, [])])
def test_some_of_many_are_evenly_spaced(count, most, expected):
    assert page._some(range(count), most) == expected
