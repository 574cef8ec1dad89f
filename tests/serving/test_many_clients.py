"""Many clients for a long time."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import serving


def resident(server):
    return server.metric("process_resident_memory_bytes")


def ask(server, source, expected):
    """One request of a kind that `source` draws. What has a seed must be as it was the first time."""
    seed, kind = source.randrange(20), source.random()
    fields = {"seed": seed, "max_tokens": 10 + seed * 3}
    if kind < 0.3:
        parts = server.events(prompt="def ", **fields)
        assert parts[-1] == "[DONE]"
        text = "".join(part["choices"][0]["text"] for part in parts[:-1])
    elif kind < 0.7:
        text = server.text(**fields)
    elif kind < 0.8:
        answer = server.http.post("/v1/completions", json={"model": "run", "prompt": "x", "temperature": -seed - 1})
        assert answer.status_code == 400
        return
    elif kind < 0.9:
        body = {"model": "run", "prompt": "def ", "stream": True, "max_tokens": 400}
        with server.http.stream("POST", "/v1/completions", json=body) as answer:
            next(answer.iter_lines())  # and away
        return
    else:
        messages = [{"role": "user", "content": "def"}]
        done = server.openai.chat.completions.create(model="run", messages=messages, max_tokens=20, n=1 + seed % 3)
        assert all(choice.finish_reason in ("stop", "length") for choice in done.choices)
        return
    assert expected.setdefault(seed, text) == text


def under_load(server, clients, seconds):
    """Requests answered in that time, by clients that never wait; each failure is raised."""
    expected, end, count = {}, time.monotonic() + seconds, 0
    lock = threading.Lock()

    def client(number):
        nonlocal count
        source = random.Random(number)
        while time.monotonic() < end:
            ask(server, source, expected)
            with lock:
                count += 1

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client, number) for number in range(clients)]:
            done.result()
    return count


def test_eight_clients_for_a_moment(server):
    assert under_load(server, 8, 4) > 8


@pytest.mark.slow
def test_eight_clients_for_five_minutes(tiny_run, tmp_path):
    """No error, the same texts at the end as at the beginning, and memory that does not grow."""
    with serving(tiny_run, folder=tmp_path) as server:
        under_load(server, 8, 60)  # until pools and caches have their size
        before = resident(server)
        answered = under_load(server, 8, 240)
        grown = resident(server) - before
        assert answered > 100
        assert grown < 8e6, f"{grown / 1e6:.1f} MB more after {answered} requests"
        assert server.metric("cllm_requests_total", status="500") == 0
        assert server.health()["running"] == 0
        assert "Traceback" not in server.command.complained
