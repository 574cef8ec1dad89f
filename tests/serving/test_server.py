"""The server as a process: who may ask, starting, health and metrics, clients that go away, and its end."""

import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import openai
import pytest
from served import ENDLESS, serving

from commands import wait_for
from crystalline.errors import EXIT_DAMAGED, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_SYSTEM, EXIT_USAGE


@pytest.fixture(scope="module")
def locked(tiny_run, tmp_path_factory):
    """A server with keys from a file and from the environment, which a web page may ask."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text("# who\nfrom-file\n\n")

    words = ("--key-file", folder / "keys", "--cors", "http://page.example")
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("CLLM_SERVING_KEYS", "from-environment, another")
            served = stack.enter_context(serving(tiny_run, *words, folder=folder, key="from-environment"))
        yield served


def test_it_listens_to_this_machine_only_unless_told_otherwise(server):
    assert server.url.startswith("http://127.0.0.1:")
    port = int(server.url.rsplit(":", 1)[1])
    listening = [line.split()[1] for line in open("/proc/net/tcp") if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_a_public_address_without_keys_is_warned_of(tiny_run, tmp_path):
    with serving(tiny_run, "--host", "0.0.0.0", folder=tmp_path) as served:
        assert "whoever reaches 0.0.0.0" in served.command.complained
    with serving(tiny_run, "--host", "0.0.0.0", "--key", "k", folder=tmp_path, key="k") as served:
        assert "whoever" not in served.command.complained
        assert served.text(max_tokens=1) is not None


def test_only_who_has_a_key_is_answered(locked):
    for key in ("from-file", "from-environment", "another"):
        answer = httpx.get(f"{locked.url}/v1/models", headers={"Authorization": f"bearer {key}"}, trust_env=False)
        assert answer.status_code == 200
    for header in (
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer from-file2",
        "Basic from-file",
        "from-file",
        "Bearer \xff",
    ):
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        for path in ("/v1/models", "/v1/completions", "/v1/nothing", "/metrics"):
            answer = httpx.get(locked.url + path, headers=headers, trust_env=False)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{locked.url}/health", trust_env=False).status_code == 200
    wrong = locked.openai.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    assert locked.openai.models.list().data


def test_pages_may_ask_only_when_they_were_named(server, locked):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for served, origin, allowed in (
        (locked, "http://page.example", True), (locked, "http://other.example", False),
        (server, "http://page.example", False),
    ):  # fmt: skip
        answer = served.http.options("/v1/completions", headers={"Origin": origin, **ask})
        assert (answer.headers.get("access-control-allow-origin") == origin) == allowed
        answer = served.http.get("/v1/models", headers={"Origin": origin})
        assert (answer.headers.get("access-control-allow-origin") == origin) == allowed


def test_health(server):
    answer = server.http.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "models": [
            {
                "id": "run", "checkpoint": "step-00000006", "step": 6, "precision": "fp32", "context": 32, "slots": 8,
                "running": 0, "waiting": 0,
            }
        ],
    }  # fmt: skip


def slow_loading():
    """Makes a server wait for the file `go` before it loads."""
    from pathlib import Path

    from crystalline.serving import models

    real = models.load

    def load(folder, precision):
        while not Path("go").exists():
            time.sleep(0.01)
        return real(folder, precision)

    models.load = load


def test_it_says_that_it_is_not_ready(tiny_run, tmp_path, start, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with (
        start("serve", tiny_run, "--port", port, before=slow_loading),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http,
    ):

        def answers():
            try:
                return http.get("/health").json()["status"] == "loading"
            except httpx.TransportError:
                return False

        wait_for(answers)
        assert http.get("/health").status_code == 503
        refused = http.post("/v1/completions", json={"model": "run", "prompt": "x"})
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["type"] == "server_error"
        (tmp_path / "go").touch()
        wait_for(lambda: http.get("/health").status_code == 200)
        assert http.post("/v1/completions", json={"model": "run", "prompt": "x"}).status_code == 200


def test_metrics_count_what_was_done(server):
    def value(name, **labels):
        return server.metric(f"cllm_{name}", **labels)

    names = (
        "prompt_tokens_total",
        "generated_tokens_total",
        "time_to_first_token_seconds_count",
        "time_per_token_seconds_count",
    )
    before = [value(name, model="run") for name in names]
    requests = value("requests_total", path="/v1/completions", status="200")
    refused = value("requests_total", path="/v1/completions", status="400")
    usage = server.complete(n=2, max_tokens=9, logit_bias={"3": -100})["usage"]
    server.http.post("/v1/completions", json={})
    after = [value(name, model="run") for name in names]
    assert usage["completion_tokens"] == 18
    assert [b - a for a, b in zip(before, after, strict=True)] == [usage["prompt_tokens"], 18, 2, 16]
    assert value("requests_total", path="/v1/completions", status="200") == requests + 1
    assert value("requests_total", path="/v1/completions", status="400") == refused + 1
    assert value("slots", model="run") == 8
    assert value("model_step", model="run") == 6
    assert server.metric("process_resident_memory_bytes") > 1e7
    for _ in range(2):
        server.http.get("/somewhere/" + os.urandom(4).hex())
    assert value("requests_total", path="other", status="404") >= 2  # however many paths, one line


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(server, stream):
    """All eight slots are taken; within a second after their clients went away all are free."""
    body = {"model": "run", "prompt": "x", "stream": stream, **ENDLESS}
    clients = [httpx.Client(base_url=server.url, timeout=60, trust_env=False) for _ in range(8)]
    if stream:
        answers = [client.stream("POST", "/v1/completions", json=body) for client in clients]
        lines = [answer.__enter__().iter_lines() for answer in answers]
        for each in lines:
            next(each)
        wait_for(lambda: server.health()["running"] == 8)
        assert server.metric("cllm_texts_running", model="run") == 8
        for answer in answers:
            answer.__exit__(None, None, None)
    else:
        threads = [
            threading.Thread(target=swallowing(client.post), args=("/v1/completions",), kwargs={"json": body})
            for client in clients
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: server.health()["running"] == 8)
    began = time.monotonic()
    for client in clients:
        if stream:
            client.close()
        else:
            abort(client)
    wait_for(lambda: server.health()["running"] == 0, 10)
    assert time.monotonic() - began < 1
    assert server.text(max_tokens=1) is not None


def swallowing(function):
    def call(*words, **options):
        with suppress(httpx.TransportError):
            function(*words, **options)

    return call


def abort(client):
    """Cut the connection of a client that waits in another thread."""
    for connection in client._transport._pool.connections:
        connection._connection._network_stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def test_more_than_fits_is_refused_at_once(server):
    """Eight are written and eight wait: the seventeenth is told to come again."""
    body = {"model": "run", "prompt": "x", "stream": True, **ENDLESS, "max_tokens": 3000}
    with ThreadPoolExecutor(16) as pool:
        clients = [httpx.Client(base_url=server.url, timeout=120, trust_env=False) for _ in range(16)]
        for client in clients:
            pool.submit(swallowing(client.post), "/v1/completions", json=body)
        wait_for(lambda: server.health()["running"] + server.health()["waiting"] == 16)
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError, match="try again"):
            server.openai.completions.create(model="run", prompt="x")
        assert time.monotonic() - began < 5
        answer = server.http.post("/v1/completions", json={"model": "run", "prompt": "x"})
        assert answer.headers["retry-after"] == "1"
        for client in clients:
            abort(client)
    wait_for(lambda: server.health()["running"] + server.health()["waiting"] == 0)


def test_the_time_of_a_request_is_limited(tiny_run, tmp_path):
    """A text that is being written ends as at a limit of tokens; one that still waits is told why it never began."""
    words = ("--slots", 1, "--set", "serving.timeout=1", "--set", "serving.max_tokens=1000000")
    with serving(tiny_run, *words, folder=tmp_path) as served:
        done = served.complete(**{**ENDLESS, "max_tokens": 1_000_000})
        assert done["choices"][0]["finish_reason"] == "length"
        assert 0 < done["usage"]["completion_tokens"] < 1_000_000
        body = {"model": "run", "prompt": ["x", "y"], **ENDLESS, "max_tokens": 1_000_000}
        answer = served.http.post("/v1/completions", json=body)
        assert answer.status_code == 503
        assert "too busy" in answer.json()["error"]["message"]
        assert served.is_alive()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_OK)])
def test_stopping_lets_texts_come_to_their_end(tiny_run, tmp_path, number, code):
    with serving(tiny_run, folder=tmp_path) as served:
        body = {"model": "run", "prompt": "x", "stream": True, **ENDLESS, "max_tokens": 300}
        with served.http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            served.command.kill(number)
            assert [*filter(None, lines)][-1] == "data: [DONE]"
        assert served.command.wait(30).code == code


def test_a_text_that_takes_too_long_does_not_hold_up_the_end(tiny_run, tmp_path):
    with serving(
        tiny_run, "--set", "serving.grace=1", "--set", "serving.max_tokens=1000000", folder=tmp_path
    ) as served:
        body = {"model": "run", "prompt": "x", "stream": True, **ENDLESS, "max_tokens": 1_000_000}
        with served.http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # which would close the connection if nobody held it
            next(lines)
            served.command.kill(signal.SIGINT)
            assert served.command.wait(30).code == EXIT_INTERRUPTED


def test_a_second_signal_ends_at_once(tiny_run, tmp_path):
    with serving(
        tiny_run, "--set", "serving.grace=600", "--set", "serving.max_tokens=1000000", folder=tmp_path
    ) as served:
        body = {"model": "run", "prompt": "x", "stream": True, **ENDLESS, "max_tokens": 1_000_000}
        with served.http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # which would close the connection if nobody held it
            next(lines)
            served.command.kill(signal.SIGINT)
            time.sleep(0.3)
            served.command.kill(signal.SIGINT)
            assert served.command.wait(30).code == EXIT_INTERRUPTED


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nothing"], EXIT_FAILED, "the folder does not exist"),
        (["RUN", "RUN"], EXIT_USAGE, "another model called"),
        (["RUN", "--host", "no.such.host.invalid"], EXIT_USAGE, "--host"),
        (["RUN", "--host", "203.0.113.1"], EXIT_SYSTEM, "--host"),
        (["RUN", "--port", "99999"], EXIT_USAGE, "less than or equal to 65535"),
        (["RUN", "--key", "zwölf"], EXIT_USAGE, "serving.keys"),
        (["RUN", "--key-file", "missing"], EXIT_SYSTEM, "missing"),
        (["RUN", "--precision", "fp8"], EXIT_USAGE, "fp8"),
        (["RUN", "--set", "serving.slotz=3"], EXIT_USAGE, "did you mean 'slots'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_it_cannot_serve_is_told(words, code, told, tiny_run, cllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, out, err = cllm("serve", *(tiny_run if word == "RUN" else word for word in words))
    assert (found, out) == (code, "")
    assert re.match(r"cllm: .+\n  why: [\s\S]+\n  fix: .+", err)
    assert told in err


def test_a_run_that_is_damaged_is_told(run, cllm):
    for folder in (run / "checkpoints").iterdir():
        (folder / "model.safetensors").write_bytes(b"x")
    code, _, err = cllm("serve", run)
    assert code == EXIT_DAMAGED
    assert "no checkpoint" in err


def test_a_port_that_is_taken_is_told(server, tiny_run, cllm):
    code, _, err = cllm("serve", tiny_run, "--port", server.url.rsplit(":", 1)[1])
    assert code == EXIT_SYSTEM
    assert "--port" in err


def test_settings_are_those_of_the_run(run, tmp_path):
    with open(run / "crystalline.toml", "a") as file:
        file.write('\n[serving]\nslots = 3\nlong_prompts = "cut"\n')
    with serving(run, folder=tmp_path) as served:
        assert served.health()["slots"] == 3
        tokens = [20 + i % 300 for i in range(100)]
        assert served.text(tokens, seed=1) == served.text(tokens[-30:], seed=1)
        assert served.complete("import os " * 5000, max_tokens=1)["usage"]["prompt_tokens"] == 30


def test_several_models_and_a_checkpoint(tiny_run, tmp_path):
    checkpoint = tiny_run / "checkpoints" / "step-00000002"
    with serving(tiny_run, checkpoint, "--precision", "int8", folder=tmp_path) as served:
        assert served.names == ["run", "run:step-00000002"]
        assert [model.id for model in served.openai.models.list().data] == served.names
        assert served.openai.models.retrieve("run:step-00000002").id == "run:step-00000002"
        models = served.http.get("/health").json()["models"]
        assert [model["step"] for model in models] == [6, 2]
        assert {model["precision"] for model in models} == {"int8"}
        prompt = {"prompt": "x", "max_tokens": 1, "logprobs": 1}
        said = [served.openai.completions.create(model=name, **prompt).choices[0].logprobs for name in served.names]
        assert said[0].top_logprobs != said[1].top_logprobs
