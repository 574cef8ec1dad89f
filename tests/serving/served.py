"""`cllm serve` as a process of its own, and how to ask it."""

import json
import re
from contextlib import contextmanager

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from commands import Command, wait_for

ENDLESS = {"logit_bias": {"3": -100}, "max_tokens": 4096}  # no end of text comes


class Served:
    """A running server. url: without /v1. names: of its models."""

    def __init__(self, command, key="none"):
        self.command = command
        wait_for(lambda: command.said.endswith("\n") or command.process.exitcode is not None, 120)
        found = re.match(r"serving (.*) at (http\S+)/v1\n", command.said)
        assert found, command.complained
        self.names, self.url = found[1].split(", "), found[2]
        headers = {} if key == "none" else {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=self.url, timeout=120, headers=headers, trust_env=False)
        self.openai = openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=120,
            http_client=httpx.Client(trust_env=False),
        )  # fmt: skip

    def complete(self, prompt="def ", **fields):
        """The answer to a completion, as JSON; it must have succeeded."""
        answer = self.http.post("/v1/completions", json={"model": self.names[0], "prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def text(self, prompt="def ", **fields):
        return self.complete(prompt, **fields)["choices"][0]["text"]

    def events(self, path="/v1/completions", **fields):
        """What a stream sends, the last mark included, as JSON or as it is."""
        body = {"model": self.names[0], "stream": True, **fields}
        with self.http.stream("POST", path, json=body) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def health(self):
        return self.http.get("/health").json()["models"][0]

    def metric(self, name, **labels):
        """The value of a sample; 0 when there is none."""
        answer = self.http.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0

    def is_alive(self):
        """The process is, and answers."""
        return self.command.process.exitcode is None and self.text(max_tokens=1) is not None


@contextmanager
def serving(*words, folder, key="none", **options):
    """A server of its own on a free port, ended by SIGKILL."""
    with Command("serve", *words, "--port", 0, folder=folder, **options) as command:
        yield Served(command, key)
