"""A newer checkpoint of a run takes over: no request fails, and what was begun ends as it would have."""

import gc
import shutil
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asked import Asked, alone
from served import serving

import crystalline
from commands import wait_for
from crystalline.errors import UserError
from crystalline.run_folder import new_folder
from crystalline.serving.metrics import Metrics
from crystalline.serving.models import Models, ServedModel, name_of
from crystalline.settings import Serving


@pytest.fixture
def young(run, tmp_path):
    """A run at step 2, and a function that lets it get on: real checkpoints come in as training writes them."""
    shutil.move(run / "checkpoints", tmp_path / "later")
    (run / "checkpoints").mkdir()

    def reach(step):
        name = f"step-{step:08}"
        with new_folder(run / "checkpoints" / name) as folder:
            shutil.copytree(tmp_path / "later" / name, folder, dirs_exist_ok=True)

    reach(2)
    return run, reach


@pytest.fixture
def served(young):
    model = ServedModel(young[0], Serving(), Metrics())
    model.load()
    yield model
    model.close()


def submit(served, *words, **options):
    made = []

    def make(loaded):
        made.append(Asked(loaded.engine.model, *words, **options))
        return [made[0].job]

    served.submit(make)
    return made[0]


def test_new_texts_are_of_the_new_model_and_old_ones_end_on_the_old(served, young):
    run, reach = young
    old, new = (crystalline.load(run.parent / "later" / f"step-{step:08}") for step in (2, 4))
    begun = [submit(served, "def ", seed=seed, max_tokens=300) for seed in range(10)]  # two of them wait
    assert not served.look()
    reach(4)
    assert served.look()
    assert served.current.step == 4
    later = submit(served, "def ", seed=1, max_tokens=60)
    assert later.texts() == [alone(new, "def ", 1, 60)]
    assert [each.texts() for each in begun] == [[alone(old, "def ", seed, 300)] for seed in range(10)]
    assert alone(old, "def ", 1, 60) != alone(new, "def ", 1, 60)
    assert not served.look()


def test_the_old_model_is_freed_when_its_texts_are_done(served, young):
    before = weakref.ref(served.current.engine.model.model)
    submit(served, "def ", max_tokens=20).wait()
    young[1](4)
    served.look()

    def freed():
        served.look()
        gc.collect()
        return before() is None

    wait_for(freed, 30)


def test_a_damaged_checkpoint_is_passed_over_once(served, young, caplog):
    run, reach = young
    reach(4)
    weights = run / "checkpoints" / "step-00000004" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for _ in range(3):
        assert not served.look()
    assert served.current.step == 2
    assert submit(served, "def ").texts()
    told = [record.message for record in caplog.records if "step-00000004" in record.message]
    assert len(told) == 1
    assert "checksum" in told[0]
    weights.write_bytes(good)  # restored from a backup
    assert served.look()
    assert served.current.step == 4


def test_half_a_checkpoint_is_not_seen(served, young):
    run, _ = young
    part = run / "checkpoints" / ".step-00000004.12345678.partial"
    shutil.copytree(run.parent / "later" / "step-00000004", part)
    assert not served.look()


def test_a_run_that_was_made_anew_is_served(served, young):
    """The same name, other weights: after training began again from zero."""
    run, _ = young
    fingerprint = served.current.fingerprint
    with new_folder(run / "checkpoints" / "step-00000002") as folder:
        shutil.copytree(run.parent / "later" / "step-00000006", folder, dirs_exist_ok=True)
        (folder / "SHA256SUMS").unlink()
    assert served.look()
    assert served.current.fingerprint != fingerprint


def test_the_best_checkpoint_is_followed(young):
    run, reach = young
    best = run / "checkpoints" / "best"
    best.symlink_to("step-00000002")
    served = ServedModel(best, Serving(), Metrics())
    served.load()
    reach(4)
    assert not served.look()
    best.unlink()
    best.symlink_to("step-00000004")
    assert served.look()
    assert served.current.step == 4
    assert served.name == "run:best"
    served.close()


def test_a_checkpoint_stays_that_checkpoint(young):
    run, reach = young
    served = ServedModel(run / "checkpoints" / "step-00000002", Serving(), Metrics())
    served.load()
    reach(4)
    assert not served.look()
    served.close()


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of(tmp_path / "my-model") == "my-model"
    assert name_of(tmp_path / "my-model" / "checkpoints" / "best") == "my-model:best"
    assert name_of(Path(".")) == tmp_path.name


def test_two_models_of_one_name(tiny_run):
    with pytest.raises(UserError, match="another model called 'run'"):
        Models([tiny_run, tiny_run], Serving(), Metrics())


def test_a_newer_checkpoint_is_taken_without_a_failed_request(young, tmp_path):
    """Six clients ask all the time while training goes on from step 2 to 4 to 6, with a damaged one in between."""
    run, reach = young
    answers, stop = [], threading.Event()

    def ask(server, number):
        while not stop.is_set():
            if number % 2:
                parts = server.events(prompt="def ", seed=1, max_tokens=25)
                assert parts[-1] == "[DONE]"
                answers.append((parts[0]["system_fingerprint"], "".join(p["choices"][0]["text"] for p in parts[:-1])))
            else:
                done = server.complete(seed=1, max_tokens=25)
                answers.append((done["system_fingerprint"], done["choices"][0]["text"]))

    with (
        serving(run, "--set", "serving.reload_seconds=0.2", folder=tmp_path) as server,
        ThreadPoolExecutor(6) as pool,
    ):
        asking = [pool.submit(ask, server, number) for number in range(6)]
        for step in (4, 5, 6):
            wait_for(lambda: len(answers) > 30, 60)
            if step == 5:
                bad = run / "checkpoints" / "step-00000005"
                shutil.copytree(run / "checkpoints" / "step-00000004", bad)
                (bad / "model.safetensors").write_bytes(b"nothing")
                wait_for(lambda: server.metric("cllm_checkpoints_passed_over_total", model="run") == 1, 10)
            else:
                began = time.monotonic()
                reach(step)
                wait_for(lambda step=step: server.health()["step"] == step, 30)
                assert time.monotonic() - began < 10
            answers.clear()
        wait_for(lambda: len(answers) > 30, 60)
        stop.set()
        for each in asking:
            each.result()
        assert server.metric("cllm_reloads_total", model="run") == 2
        assert server.metric("cllm_requests_total", path="/v1/completions", status="500") == 0
        assert "step-00000005 cannot be used" in server.command.complained
        assert "now serving checkpoint step-00000006" in server.command.complained
    model = crystalline.load(run / "checkpoints" / "step-00000006")
    new = {text for fingerprint, text in answers if fingerprint.startswith("step-00000006")}
    assert new == {model.generate("def ", model.sampling(seed=1), max_tokens=25)}
