"""The official OpenAI Python client against the OpenAI-compatible API of a Provost node.

Reads URL (`http://…/v1`) and TOKEN from the environment; expects the chat model `tiny-chat`, which has random weights:
what is checked is the form, not the sense. Prints `ok NAME` for each check; the first failure ends it with a non-zero
exit status.
"""

import json
import os

import openai

MODEL = "tiny-chat"
MESSAGES = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "count"],
    "additionalProperties": False,
}

client = openai.OpenAI(
    base_url=os.environ["URL"],
    api_key=os.environ["TOKEN"],
    max_retries=0,
    timeout=120,
    # The node is on this machine: a proxy of the environment has no part in it.
    http_client=openai.DefaultHttpxClient(trust_env=False),
)


def ask(**more):
    return client.chat.completions.create(model=MODEL, messages=MESSAGES, **{"max_tokens": 16, "seed": 7, **more})


def refused(**more):
    try:
        ask(**more)
    except openai.BadRequestError as error:
        return error.message
    raise AssertionError(f"{more} was not refused")


def whole():
    answer = ask(temperature=1)
    assert answer.choices[0].message.role == "assistant"
    assert 0 < answer.usage.completion_tokens <= 16, answer
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.choices[0].logprobs is None
    again = ask(temperature=1)
    assert again.choices[0].message.content == answer.choices[0].message.content, "a seed repeats"


def streamed():
    expected = ask(temperature=1, logprobs=True, top_logprobs=2)
    stream = ask(temperature=1, logprobs=True, top_logprobs=2, stream=True, stream_options={"include_usage": True})
    text, tokens, usage = "", [], None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            tokens += choice.logprobs.content if choice.logprobs else []
    assert text == expected.choices[0].message.content
    assert usage == expected.usage, (usage, expected.usage)
    likely = expected.choices[0].logprobs.content
    assert [token.bytes for token in tokens] == [token.bytes for token in likely]
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
    said = b"".join(bytes(token.bytes) for token in tokens).decode("utf-8", "replace")
    assert said == text, (said, text)


def json_schema():
    for seed in range(4):
        answer = ask(
            temperature=1,
            seed=seed,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": {"name": "shape", "schema": SCHEMA, "strict": True}},
        )
        value = json.loads(answer.choices[0].message.content)
        assert set(value) == {"colour", "count"} and value["colour"] in ("red", "green"), value
        assert 0 <= value["count"] <= 99, value


def what_is_not_served():
    assert "`n`" in refused(n=2)
    function = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    assert "tools" in refused(tools=[function])
    assert "logit_bias" in refused(logit_bias={"5": 1})
    assert "schema" in refused(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "?"}}})


def models():
    assert MODEL in [model.id for model in client.models.list()]


for check in (models, whole, streamed, json_schema, what_is_not_served):
    check()
    print("ok", check.__name__)
