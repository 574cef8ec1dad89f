"""What the server counts and measures, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Metrics", "ModelMeter"]

# A second line for each, which Prometheus itself does not need.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

FIRST_TOKEN = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
NEXT_TOKEN = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """All of one server. Times are in seconds."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        model = ["model"]
        self.requests = Counter("cllm_requests", "Requests answered", ["path", "status"], registry=registry)
        self.prompt_tokens = Counter("cllm_prompt_tokens", "Tokens of prompts read", model, registry=registry)
        self.tokens = Counter("cllm_generated_tokens", "Tokens written", model, registry=registry)
        self.first_token = Histogram(
            "cllm_time_to_first_token_seconds", "From a request to the first token of a text", model,
            registry=registry, buckets=FIRST_TOKEN,
        )  # fmt: skip
        self.next_token = Histogram(
            "cllm_time_per_token_seconds", "From a token of a text to the next one", model,
            registry=registry, buckets=NEXT_TOKEN,
        )  # fmt: skip
        self.slots = Gauge("cllm_slots", "Texts that can be written at once", model, registry=registry)
        self.running = Gauge("cllm_texts_running", "Texts that are being written", model, registry=registry)
        self.waiting = Gauge("cllm_texts_waiting", "Texts that wait for a slot", model, registry=registry)
        self.step = Gauge("cllm_model_step", "Training step of the model that is served", model, registry=registry)
        self.reloads = Counter("cllm_reloads", "Newer checkpoints taken into service", model, registry=registry)
        self.passed_over = Counter(
            "cllm_checkpoints_passed_over", "Checkpoints that could not be used", model, registry=registry
        )

    def model(self, name: str) -> ModelMeter:
        """The measures of one model."""
        return ModelMeter(self, name)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class ModelMeter:
    """Measures of one model; what an engine tells goes here."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._prompt_tokens = metrics.prompt_tokens.labels(name)
        self._tokens = metrics.tokens.labels(name)
        self._first_token, self._next_token = metrics.first_token.labels(name), metrics.next_token.labels(name)
        self._gauges = [
            gauge.labels(name) for gauge in (metrics.slots, metrics.running, metrics.waiting, metrics.step)
        ]
        self.reloads, self.passed_over = metrics.reloads.labels(name), metrics.passed_over.labels(name)

    def show(self, *numbers: Callable[[], float]) -> None:
        """Ask these for slots, running, waiting and step whenever somebody reads the metrics."""
        for gauge, number in zip(self._gauges, numbers, strict=True):
            gauge.set_function(number)

    def prompt_read(self, tokens: int) -> None:
        """A prompt has been read."""
        self._prompt_tokens.inc(tokens)

    def first_token(self, seconds: float) -> None:
        """A text has its first token, so long after it was asked for."""
        self._tokens.inc()
        self._first_token.observe(seconds)

    def next_token(self, seconds: float) -> None:
        """It has another one, so long after the one before."""
        self._tokens.inc()
        self._next_token.observe(seconds)
