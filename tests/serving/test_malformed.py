"""Whatever is wrong with a request: a 4xx in OpenAI's form, and the next one is served."""

import json
import socket

import pytest

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
USER = [{"role": "user", "content": "x"}]


def completion(**fields):
    return json.dumps({"model": "run", "prompt": "x", "max_tokens": 2, **fields}).encode()


def chat(**fields):
    return json.dumps({"model": "run", "messages": USER, "max_tokens": 2, **fields}).encode()


def raw(text):
    """A completion with something in it that json.dumps would not write."""
    return completion()[:-1] + b", " + text + b"}"


BODIES = {
    "nothing": b"",
    "no JSON": b"{model: run}",
    "half of it": completion()[:-3],
    "something behind it": completion() + b"}",
    "no UTF-8": completion(prompt="x").replace(b'"x"', b'"\xff\xfe"'),
    "UTF-16": json.dumps({"model": "run"}).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + completion(),
    "a list": b"[1, 2]",
    "a string": b'"x"',
    "null": b"null",
    "NUL": b"\0" * 100,
    "NaN": raw(b'"temperature": NaN'),
    "infinity": raw(b'"temperature": Infinity'),
    "a number beyond all": raw(b'"temperature": 1e999'),
    "a number of many digits": raw(b'"seed": ' + b"9" * 6000),
    "a long number": raw(b'"max_tokens": 99999999999999999999999'),
    "deep lists": raw(b'"x": ' + b"[" * 200_000 + b"]" * 200_000),
    "deep objects": raw(b'"x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "half a surrogate pair in the prompt": raw(b'"prompt": "\\ud800"'),
    "half a surrogate pair in the stop": raw(b'"stop": ["\\udfff"]'),
    "half a surrogate pair in the model": raw(b'"model": "\\ud800x"'),
    "half a surrogate pair in a name": raw(b'"\\ud800": 1'),
    "half a surrogate pair in a message": chat(messages=[{"role": "user", "content": "\ud800"}]),
}
FIELDS = {
    "temperature": [-1, 11, 1e9, "1", "hot", True, [], {}],
    "top_p": [-0.1, 1.1, "x", True],
    "top_k": [-2, 1.5, 10**30, "5"],
    "min_p": [-1, 2],
    "repetition_penalty": [0, -1, 1e9],
    "presence_penalty": [-3, 3, "x"],
    "frequency_penalty": [-3, 3, None.__class__.__name__],
    "n": [0, -1, 9, 129, 1.5, "2", True, 10**30],
    "max_tokens": [-1, 1.5, 4097, 10**30, "5", True],
    "seed": [1.5, "1", 2**64, -(2**63) - 1, True],
    "stream": ["yes", 1, 0, []],
    "stop": ["", [""], ["a"] * 17, [1], 5, {"a": 1}, ["x" * 1001], [["a"]]],
    "logit_bias": [{"x": 1}, {"-1": 1}, {"999999": 1}, {"5": 101}, {"5": "x"}, {"²": 1}, [], "x", {"9" * 5000: 1}],
    "stream_options": [{"include_usage": True}, "x", {"include_usage": "yes"}],
    "model": ["", None, 5, "other", "x" * 2000, ["run"], "../run", "run\0"],
    "messages": [
        [], "x", None, [{}], ["x"], [{"role": "user"}], [{"role": "king", "content": "x"}], [{"content": "x"}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
        [{"role": "tool", "content": "x"}], {"role": "user", "content": "x"}, [{"role": "user", "content": None}],
        [{"role": "user", "content": "x " * 100}],
    ],
    "top_logprobs": [1, -1, 21, "x"],
    "max_completion_tokens": [-1, 5000],
    "response_format": [{"type": "json_object"}, "x"],
    "tools": [[{"type": "function"}], "x"],
    "functions": [[{"name": "x"}]],
    "tool_choice": ["required", {"type": "function"}],
}  # fmt: skip
ONLY_COMPLETIONS = {
    "prompt": [
        None, 5, 1.5, True, {}, [], [None], ["x", 5], [[1], "x"], [["x"]], [[-1]], [10**30], [400], [[9], [999]],
        [1.5], [True], "x " * 100, ["x"] * 17, ["x", "y " * 100], "x" * 900_000,
    ],
    "logprobs": [-1, 21, True, "x", 1.5],
    "echo": ["x", 1],
    "best_of": [2, "x", True],
    "suffix": ["x", 5],
}  # fmt: skip
CASES = [
    *(pytest.param(COMPLETIONS, body, id=name) for name, body in BODIES.items()),
    *(
        pytest.param(path, body(**{name: value}), id=f"{kind}-{name}-{str(value)[:30]}")
        for kind, path, body, fields in (
            ("completion", COMPLETIONS, completion, {**FIELDS, **ONLY_COMPLETIONS}), ("chat", CHAT, chat, FIELDS),
        )
        for name, values in fields.items()
        for value in values
        if kind == "chat"
        or name not in ("messages", "top_logprobs", "max_completion_tokens", "response_format", "tools", "functions",
                        "tool_choice")
    ),
]  # fmt: skip


def assert_refused(answer, *statuses):
    assert answer.status_code in statuses, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["message"], str)
    assert len(error["message"]) < 1000
    assert error["type"] in ("invalid_request_error", "authentication_error", "rate_limit_error")
    return error


@pytest.mark.parametrize(("path", "body"), CASES)
def test_a_malformed_body_is_refused(server, path, body):
    assert_refused(server.http.post(path, content=body, headers=JSON), 400, 404)


@pytest.fixture(scope="module", autouse=True)
def _lives_on(server):
    yield
    assert server.is_alive()
    assert server.health()["running"] == 0
    assert server.command.complained.count("Traceback") == 0, server.command.complained
    assert server.metric("cllm_requests_total", status="500") == 0


def test_the_field_that_is_wrong_is_named(server):
    for fields, param in (
        ({"temperature": -1}, "temperature"), ({"stop": ["a", ""]}, "stop.1"), ({"prompt": 5}, "prompt"),
        ({"best_of": 3}, "best_of"), ({"model": "other"}, "model"), ({"n": 9}, "n"),
    ):  # fmt: skip
        answer = server.http.post(COMPLETIONS, content=completion(**fields), headers=JSON)
        assert assert_refused(answer, 400, 404)["param"] == param
    answer = server.http.post(COMPLETIONS, json={"model": "run"})
    error = assert_refused(answer, 400)
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"]
)
def test_another_content_type(server, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    assert_refused(server.http.post(COMPLETIONS, content=completion(), headers=headers), 415)


def test_a_content_type_with_a_charset(server):
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert server.http.post(COMPLETIONS, content=completion(), headers=headers).status_code == 200


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_ten_megabytes(server, announced):
    big = completion(prompt="x" * 10_000_000)
    parts = big if announced else (big[i : i + 100_000] for i in range(0, len(big), 100_000))
    assert_refused(server.http.post(COMPLETIONS, content=parts, headers=JSON), 413)
    assert server.is_alive()


def test_a_body_that_is_announced_to_be_huge(server):
    with ask_raw(server, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 b"Content-Length: 99999999999999\r\n\r\n{") as connection:  # fmt: skip
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert server.is_alive()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
def test_another_method(server, method):
    answer = server.http.request(method, COMPLETIONS)
    assert answer.headers["allow"] == "POST"
    if method != "HEAD":
        assert_refused(answer, 405)
    assert answer.status_code == 405


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/nothing", "/v1/models/", "/v1/models/other", "/v1/models/%ff%00", "/V1/models",
             "/v1/completions/", "/v1/../etc/passwd", "/%2e%2e/%2e%2e", "//v1/models", "/docs", "/redoc",
             "/v1/models/a/b"]
)  # fmt: skip
def test_an_unknown_path(server, path):
    assert_refused(server.http.get(path), 404)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["noise", "version", "length", "path", "header", "chunk"],
)
def test_what_is_no_http_is_refused_too(server, data):
    with ask_raw(server, data) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 4")
    assert server.is_alive()


def test_a_client_that_goes_away_in_the_middle_of_its_request(server):
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    for data in (b"", head[:14], head, head + b'{"model": "r'):
        ask_raw(server, data).close()
    assert server.is_alive()


def ask_raw(server, data):
    """A connection on which these bytes were sent."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(data)
    return connection
