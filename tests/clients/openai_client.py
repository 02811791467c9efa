"""The official OpenAI Python client against the OpenAI-compatible API of a Provost node.

Reads URL (`http://…/v1`), TOKEN and SOUND (a WAV file of 1.37 seconds) from the environment; expects the chat model
`tiny-chat`, the embedding model `tiny-bert` (vectors of 32 numbers, a token a byte) and the speech model `tiny-whisper`, which
have random weights: what is checked is the form, not the sense. Prints `ok NAME` for each check; the first failure ends it with
a non-zero exit status.
"""

import base64
import json
import os
import struct

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

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Says how it will be.", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}},
]

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


def check_call(name, arguments):
    value = json.loads(arguments)
    if name == "weather":
        assert set(value) == {"city", "days"} and len(value["city"]) <= 8 and 1 <= value["days"] <= 14, value
    else:
        assert name == "paint" and set(value) == {"colour", "count"} and value["colour"] in ("red", "green"), value


def tools():
    for seed in range(3):
        how = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
        how |= {"temperature": 1, "seed": seed, "max_tokens": 300}
        choice = ask(**how).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None, choice
        (call,) = choice.message.tool_calls
        assert call.type == "function" and call.id, call
        check_call(call.function.name, call.function.arguments)

        heads, arguments, reason = [], "", None
        for chunk in ask(stream=True, **how):
            for piece in chunk.choices:
                reason = piece.finish_reason or reason
                for delta in piece.delta.tool_calls or []:
                    assert delta.index == 0
                    heads += [(delta.id, delta.function.name)] if delta.id else []
                    arguments += delta.function.arguments or ""
        assert reason == "tool_calls" and len(heads) == 1 and heads[0][1] == call.function.name, (reason, heads)
        assert arguments == call.function.arguments, "streamed and whole say the same"

    named = {"type": "function", "function": {"name": "paint"}}
    (painted,) = ask(tools=TOOLS, tool_choice=named, max_tokens=300, temperature=1).choices[0].message.tool_calls
    assert painted.function.name == "paint"
    check_call("paint", painted.function.arguments)

    # The call and its result go back to the model; it may now say what it likes.
    asked = {"role": "assistant", "content": None, "tool_calls": [painted.model_dump()]}
    told = {"role": "tool", "tool_call_id": painted.id, "content": "done"}
    answer = client.chat.completions.create(
        model=MODEL, messages=[*MESSAGES, asked, told], tools=TOOLS, max_tokens=16, seed=7
    )
    assert answer.choices[0].finish_reason in ("stop", "length"), answer
    free = ask(tools=TOOLS, tool_choice="none").choices[0].message
    assert free.tool_calls is None and free.content == ask().choices[0].message.content


def tools_that_are_wrong():
    def one(**function):
        return [{"type": "function", "function": {"name": "f", **function}}]

    assert "`other`" in refused(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "other"}})
    assert "`tools`" in refused(tools=[], tool_choice="required")
    assert "a b" in refused(tools=one(name="a b"))
    assert "object" in refused(tools=one(parameters={"type": "array"}))
    broken = {"type": "object", "properties": {"a": {"type": "?"}}}
    assert "schema" in refused(tools=one(parameters=broken), tool_choice="required")
    assert "logprobs" in refused(tools=TOOLS, logprobs=True)


def what_is_not_served():
    assert "`n`" in refused(n=2)
    assert "logit_bias" in refused(logit_bias={"5": 1})
    assert "schema" in refused(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "?"}}})


def models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    try:
        client.models.retrieve("absent")
    except openai.NotFoundError as error:
        assert error.code == "PV-MODEL-UNKNOWN", error
    else:
        raise AssertionError("a model was found that is none")


def complete(**more):
    how = {"max_tokens": 12, "seed": 7, "temperature": 1, **more}
    return client.completions.create(model=MODEL, **{"prompt": "Once upon", **how})


def completions():
    answer = complete(logprobs=2)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-"), answer
    (choice,) = answer.choices
    assert choice.finish_reason in ("stop", "length"), choice
    # One token a byte, and no template around it.
    assert answer.usage.prompt_tokens == len("Once upon"), answer.usage
    assert 0 < answer.usage.completion_tokens <= 12, answer.usage
    likely = choice.logprobs
    made = len(likely.tokens)
    assert made == len(likely.token_logprobs) == len(likely.top_logprobs) == len(likely.text_offset), likely
    assert made >= answer.usage.completion_tokens - 1 and likely.text_offset == sorted(likely.text_offset), likely
    assert all(logprob <= 0 for logprob in likely.token_logprobs), likely
    assert complete().choices[0].text == choice.text, "a seed repeats"
    assert complete().choices[0].logprobs is None

    text, usage, reason = "", None, None
    for chunk in complete(stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for piece in chunk.choices:
            text += piece.text
            reason = piece.finish_reason or reason
    assert (text, usage, reason) == (choice.text, answer.usage, choice.finish_reason)


def completions_that_are_refused():
    def refusal(**more):
        try:
            complete(**more)
        except openai.BadRequestError as error:
            return error.message
        raise AssertionError(f"{more} was not refused")

    assert "`echo`" in refusal(echo=True)
    assert "`n`" in refusal(n=2)
    assert "`prompt`" in refusal(prompt=["one", "two"])
    assert "`prompt`" in refusal(prompt=[79, 110])


def embeddings():
    """The client asks for base64 where nothing else is said, and reads it."""
    texts = ["a cat", "two dogs"]
    answer = client.embeddings.create(model="tiny-bert", input=texts)
    assert [one.index for one in answer.data] == [0, 1] and answer.model == "tiny-bert", answer
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, texts)), answer.usage
    for one in answer.data:
        assert len(one.embedding) == 32 and abs(sum(x * x for x in one.embedding) - 1) < 1e-4, one
    plain = client.embeddings.create(model="tiny-bert", input=texts[0], encoding_format="float").data[0].embedding
    packed = client.embeddings.create(model="tiny-bert", input=texts[0], encoding_format="base64").data[0].embedding
    unpacked = struct.unpack("<32f", base64.b64decode(packed))
    for vector in (plain, unpacked):
        assert max(abs(a - b) for a, b in zip(vector, answer.data[0].embedding, strict=True)) < 1e-4, vector


def embeddings_that_are_refused():
    for more, says in [({"input": []}, "0 inputs"), ({"input": "x" * 300}, "256"), ({"dimensions": 8}, "dimensions"), ({"input": [1, 2]}, "tokens")]:
        try:
            client.embeddings.create(**{"model": "tiny-bert", "input": "a", **more})
        except openai.BadRequestError as error:
            assert says in error.message, error
        else:
            raise AssertionError(f"{more} was not refused")
    try:
        client.embeddings.create(model=MODEL, input="a")
    except openai.BadRequestError as error:
        assert "a chat model" in error.message, error
    else:
        raise AssertionError("a chat model embedded a text")


def transcribe(**more):
    with open(os.environ["SOUND"], "rb") as file:
        return client.audio.transcriptions.create(model="tiny-whisper", file=file, language="en", **more)


def recordings():
    said = transcribe()
    assert said.text and said.usage.type == "tokens", said
    assert said.usage.input_tokens >= 69, "fifty a second"
    assert transcribe(response_format="text").strip() == said.text
    verbose = transcribe(response_format="verbose_json", timestamp_granularities=["segment"])
    assert abs(verbose.duration - 1.37) < 0.01 and verbose.language == "en", verbose
    assert verbose.segments == sorted(verbose.segments, key=lambda segment: segment.start), verbose
    assert all(0 <= segment.start <= segment.end <= 1.38 for segment in verbose.segments), verbose
    assert transcribe(response_format="vtt").startswith("WEBVTT\n\n")
    if verbose.segments:
        assert " --> " in transcribe(response_format="srt")


def recordings_that_are_refused():
    def refusal(**more):
        try:
            transcribe(**more)
        except openai.BadRequestError as error:
            return error.message
        raise AssertionError(f"{more} was not refused")

    assert "word" in refusal(response_format="verbose_json", timestamp_granularities=["word"])
    assert "temperature" in refusal(temperature=1.5)
    assert "include" in refusal(include=["logprobs"])
    try:
        client.audio.transcriptions.create(model="tiny-whisper", file=("a.wav", b"no sound"))
    except openai.BadRequestError as error:
        assert "audio" in error.message, error
    else:
        raise AssertionError("no sound was taken for one")


CHECKS = (
    models, whole, streamed, json_schema, tools, tools_that_are_wrong, what_is_not_served, completions, completions_that_are_refused,
    embeddings, embeddings_that_are_refused, recordings, recordings_that_are_refused,
)
for check in CHECKS:
    check()
    print("ok", check.__name__)
