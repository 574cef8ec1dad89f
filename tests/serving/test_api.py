"""Completions, chat and models, asked for by OpenAI's own client."""

import json
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import crystalline
from crystalline.model.sampling import Sampling


@pytest.fixture(scope="module")
def model(tiny_run):
    return crystalline.load(tiny_run)


def test_models(server):
    (found,) = server.openai.models.list().data
    assert (found.id, found.object, found.owned_by) == ("run", "model", "crystalline")
    assert server.openai.models.retrieve("run") == found
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        server.openai.models.retrieve("other")


def test_a_completion_is_what_generate_gives(server, model):
    done = server.openai.completions.create(model="run", prompt="def ", max_tokens=40, seed=3)
    (choice,) = done.choices
    assert choice.text == model.generate("def ", Sampling(**{**model.sampling().__dict__, "seed": 3}), max_tokens=40)
    assert choice.finish_reason in ("stop", "length")
    assert choice.logprobs is None
    assert done.object == "text_completion"
    assert done.usage.prompt_tokens == len(model.tokenizer.encode("def "))
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.system_fingerprint.startswith("step-00000006-")


def test_every_setting_of_generate_is_followed(server, model):
    for fields in (
        {"temperature": 0}, {"temperature": 1.5, "top_k": 5}, {"top_p": 0.5}, {"min_p": 0.3}, {"top_k": -1},
        {"repetition_penalty": 2.0},
    ):  # fmt: skip
        text = server.text("import ", seed=1, max_tokens=20, **fields)
        fields = {**fields, "top_k": max(0, fields.get("top_k", 0))}
        assert text == model.generate("import ", model.sampling(seed=1, **fields), max_tokens=20)
    assert server.text("import ", top_p=0, max_tokens=20) == server.text("import ", temperature=0, max_tokens=20)


def test_a_prompt_in_every_form(server, model):
    tokens = model.tokenizer.encode("import os")
    whole = server.text("import os", seed=2)
    assert server.text(tokens, seed=2) == whole
    both = server.complete(["import os", "def "], seed=2)["choices"]
    assert [choice["index"] for choice in both] == [0, 1]
    assert [choice["text"] for choice in both] == [whole, server.text("def ", seed=2)]
    assert server.complete([tokens, tokens], seed=2)["choices"][1]["text"] == whole
    assert server.text("", seed=2) == server.text([[]], seed=2)


def test_many_texts_of_one_prompt(server):
    texts = [choice["text"] for choice in server.complete(n=3, seed=8)["choices"]]
    assert texts == [server.text(seed=8 + i) for i in range(3)]
    two = server.complete(["def ", "x"], n=2, seed=8)["choices"]
    assert [choice["text"] for choice in two] == [*texts[:2], server.text("x", seed=8), server.text("x", seed=9)]


def test_without_a_seed_texts_differ(server):
    assert len({server.text(max_tokens=30) for _ in range(3)}) > 1


def test_the_same_alone_and_among_eight(server):
    def ask(seed):
        return server.text(["def ", "import os"][seed % 2], seed=seed, max_tokens=100)

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(ask, range(8))) == alone


def test_a_stream_is_the_whole_answer_in_parts(server):
    for fields in ({}, {"stop": ["e"]}, {"n": 2}, {"logprobs": 2}, {"logprobs": 1, "echo": True, "stop": "a"}):
        whole = server.complete(seed=4, max_tokens=50, **fields)
        *parts, usage, last = server.events(
            prompt="def ", seed=4, max_tokens=50, stream_options={"include_usage": True}, **fields
        )
        assert last == "[DONE]"
        assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
        assert all(part["usage"] is None for part in parts)
        assert len({part["id"] for part in parts}) == 1
        for expected in whole["choices"]:
            mine = [c for part in parts for c in part["choices"] if c["index"] == expected["index"]]
            assert "".join(c["text"] for c in mine) == expected["text"]
            assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + [expected["finish_reason"]]
            if "logprobs" in fields:
                joined = {name: [x for c in mine for x in c["logprobs"][name]] for name in expected["logprobs"]}
                assert joined == expected["logprobs"]


def test_a_stream_without_usage_has_no_field_for_it(server):
    assert all("usage" not in event for event in server.events(prompt="x", max_tokens=5)[:-1])


def test_the_clients_stream(server):
    whole = server.openai.completions.create(model="run", prompt="def ", seed=4, max_tokens=50)
    parts = server.openai.completions.create(model="run", prompt="def ", seed=4, max_tokens=50, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole.choices[0].text


def test_stop_strings_are_not_shown(server):
    text = server.text(seed=4, max_tokens=60)
    stop = text[5:8]
    done = server.complete(seed=4, max_tokens=60, stop=["never comes", stop])["choices"][0]
    assert done["text"] == text[: text.index(stop)]
    assert done["finish_reason"] == "stop"


def test_characters_of_several_tokens_come_whole(server, model):
    """The bytes of '😀' are tokens; a bias makes them come one after the other."""
    tokens = model.tokenizer.encode("😀")
    assert len(tokens) > 1
    bias = {str(token): 100 for token in tokens}
    events = server.events(
        prompt="é", logit_bias=bias, temperature=0, max_tokens=30, presence_penalty=2, frequency_penalty=2
    )
    pieces = [event["choices"][0]["text"] for event in events[:-1]]
    whole = server.text("é", logit_bias=bias, temperature=0, max_tokens=30, presence_penalty=2, frequency_penalty=2)
    assert "".join(pieces) == whole
    answer = server.complete(model.tokenizer.encode("a😀b"), echo=True, max_tokens=0, logprobs=0)["choices"][0]
    assert answer["text"] == "a😀b"
    assert answer["logprobs"]["tokens"] == ["a", *(f"bytes:\\x{byte:02x}" for byte in "😀".encode()), "b"]
    assert answer["logprobs"]["text_offset"] == [0, 1, 1, 1, 1, 2]


def test_likelihoods_of_a_prompt(server, model):
    """What programs that measure models ask for: the prompt's own log-probabilities, and no token more."""
    answer = server.complete("import os", echo=True, max_tokens=0, logprobs=0)["choices"][0]
    assert answer["text"] == "import os"
    logprobs = answer["logprobs"]
    tokens = model.tokenizer.encode("import os")
    said = model.decoder.fresh().read(0, [model.tokenizer.bos, *tokens], every=True)
    from crystalline.model.sampling import log_probabilities

    assert logprobs["token_logprobs"] == [float(log_probabilities(said[i])[t]) for i, t in enumerate(tokens)]
    assert [list(each.values()) for each in logprobs["top_logprobs"]] == [[x] for x in logprobs["token_logprobs"]]


def test_the_limit_of_tokens(server, model):
    assert server.complete(max_tokens=7, seed=1, logit_bias={"3": -100})["usage"]["completion_tokens"] == 7
    assert server.complete(seed=1, logit_bias={"3": -100})["usage"]["completion_tokens"] == model.defaults.max_tokens
    assert server.text(max_tokens=0) == ""


MESSAGES = [
    {"role": "system", "content": "Some text."},
    {"role": "user", "content": "def"},
    {"role": "assistant", "content": "x"},
    {"role": "user", "content": [{"type": "text", "text": "imp"}, {"type": "text", "text": "ort"}]},
]


def test_chat_is_the_next_paragraph(server):
    done = server.openai.chat.completions.create(model="run", messages=MESSAGES, seed=6, max_tokens=60)
    (choice,) = done.choices
    text = server.text("Some text.\n\ndef\n\nx\n\nimport\n", seed=6, max_tokens=60, stop="\n\n")
    assert choice.message.content == text.lstrip("\n")
    assert "\n\n" not in choice.message.content
    assert choice.message.role == "assistant"
    assert done.object == "chat.completion"


def test_a_streamed_chat(server):
    whole = server.openai.chat.completions.create(model="run", messages=MESSAGES, seed=6, max_tokens=60, n=2)
    stream = server.openai.chat.completions.create(
        model="run",
        messages=MESSAGES,
        seed=6,
        max_tokens=60,
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    texts, ends, parts = ["", ""], [None, None], list(stream)
    for choice in (choice for part in parts for choice in part.choices):
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert [part.choices[0].delta.role for part in parts[:2]] == ["assistant"] * 2
    assert parts[-1].usage == whole.usage


def test_likelihoods_in_a_chat(server):
    asked = {"model": "run", "messages": MESSAGES, "seed": 6, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    whole = server.openai.chat.completions.create(**asked).choices[0]
    assert whole.logprobs.content
    for each in whole.logprobs.content:
        assert len(each.top_logprobs) == 2
        assert each.top_logprobs[0].logprob >= each.top_logprobs[1].logprob
        assert each.logprob <= 0
    text = b"".join(bytes(each.bytes) for each in whole.logprobs.content).decode("utf-8", "replace")
    assert text.lstrip("\n").startswith(whole.message.content.rstrip("�"))
    events = server.events("/v1/chat/completions", **{k: v for k, v in asked.items() if k != "model"})
    parts = [c["logprobs"]["content"] for e in events[:-1] for c in e["choices"] if c["logprobs"]]
    assert [each["token"] for part in parts for each in part] == [each.token for each in whole.logprobs.content]


def test_a_prompt_beyond_the_context_is_refused_as_openai_does(server):
    with pytest.raises(openai.BadRequestError, match="has room for 30 tokens") as refused:
        server.openai.completions.create(model="run", prompt="x " * 40)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="characters"):
        server.openai.completions.create(model="run", prompt="x " * 40_000)
    assert server.text([9] * 30, max_tokens=50, logit_bias={"3": -100})  # to the brim, and beyond while it is written


def test_unknown_fields_are_passed_over(server):
    assert server.text(seed=1, user="me", store=False, something={"new": [1]}) == server.text(seed=1)


def test_a_field_that_is_null_is_not_there(server):
    none = dict.fromkeys(
        ("n", "temperature", "top_p", "stop", "stream", "seed", "logprobs", "suffix", "best_of", "logit_bias",
         "max_tokens", "echo", "presence_penalty", "stream_options")
    )  # fmt: skip
    assert server.complete(**none)["choices"][0]["finish_reason"]


def test_the_description_names_every_path(server):
    described = server.http.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/models", "/v1/models/{name}", "/v1/completions", "/v1/chat/completions", "/health", "/metrics",
    }  # fmt: skip
    body = described["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/CompletionRequest"}
    known = set(described["components"]["schemas"])
    references = {part.split('"')[0] for part in json.dumps(described).split("#/components/schemas/")[1:]}
    assert references <= known
