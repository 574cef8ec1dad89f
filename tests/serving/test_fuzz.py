"""Requests made up from the server's own description of itself: none makes it fail."""

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode, checks
from served import serving

POSTED = ("/v1/completions", "/v1/chat/completions")
ASKED = ("/v1/models", "/v1/models/{name}", "/health", "/metrics")
PROMISED = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def fuzzed(tiny_run, tmp_path_factory):
    """A server that writes short texts only, so that there is time for many."""
    words = ("--set", "serving.max_tokens=20", "--set", "serving.queue=1000")
    with serving(tiny_run, *words, folder=tmp_path_factory.mktemp("fuzzed")) as served:
        yield served
        assert served.is_alive()
        assert served.metric("cllm_requests_total", status="500") == 0
        assert "Traceback" not in served.command.complained
        assert served.health()["running"] == 0


@pytest.fixture(scope="module")
def description(fuzzed):
    return schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")


def check(case):
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = "run"  # or every answer would be that there is no such model
    answer = case.call()
    case.validate_response(answer, checks=PROMISED)
    if answer.status_code >= 400 and case.method != "HEAD" and not case.path.startswith("/health"):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def fuzz(description, path, method, mode, examples):
    @hypothesis.settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=description[path][method].as_strategy(generation_mode=mode))
    def made_up(case):
        check(case)

    made_up()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTED)
def test_made_up_requests(description, path, mode):
    fuzz(description, path, "POST", mode, 25)


@pytest.mark.parametrize("path", ASKED)
def test_made_up_questions(description, path):
    fuzz(description, path, "GET", GenerationMode.POSITIVE, 10)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTED)
def test_many_made_up_requests(description, path, mode):
    fuzz(description, path, "POST", mode, 300)
