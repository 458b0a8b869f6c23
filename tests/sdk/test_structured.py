"""Structured output and tools through the official Python SDK, with the demo model."""

import enum
import json
import threading
import time
from typing import Literal

import openai
import pydantic
import pytest

from conftest import MODEL

ASK = [{"role": "user", "content": "Which colour has the sky, and how sure are you?"}]


class Answer(pydantic.BaseModel):
    class Colour(enum.Enum):
        red = "red"
        blue = "blue"

    colour: Colour
    sure: bool
    digits: Literal[1, 2, 3]


class GetWeather(pydantic.BaseModel):
    """Weather of a city."""

    city: Literal["Paris", "Oslo"]
    unit: Literal["C", "F"]


TOOLS = [openai.pydantic_function_tool(GetWeather, name="get_weather")]


@pytest.mark.parametrize("temperature", [0, 1.2])
def test_parse_returns_the_model_class(client, temperature):
    reply = client.chat.completions.parse(
        model=MODEL, messages=ASK, response_format=Answer, temperature=temperature, n=2
    )
    for choice in reply.choices:
        assert isinstance(choice.message.parsed, Answer)
        assert choice.finish_reason == "stop"


def test_stream_helper_parses(client):
    with client.chat.completions.stream(model=MODEL, messages=ASK, response_format=Answer) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Answer)
    assert {"content.delta", "content.done"} <= kinds


def test_json_object_is_an_object(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format={"type": "json_object"}, temperature=0,
        max_tokens=200,
    )
    choice = reply.choices[0]
    assert choice.message.content.lstrip().startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)


def test_extensions(client):
    reply = client.chat.completions.create(
        model=MODEL, messages=ASK, extra_body={"structured_outputs": {"choice": ["red", "blue"]}}
    )
    assert reply.choices[0].message.content in {"red", "blue"}
    reply = client.chat.completions.create(
        model=MODEL, messages=ASK, extra_body={"regex": r"\d{3}-\d{2}"}
    )
    assert len(reply.choices[0].message.content) == 6


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_forced_calls_are_valid(client, choice):
    reply = client.chat.completions.parse(
        model=MODEL, messages=ASK, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False
    )
    message = reply.choices[0].message
    assert message.content is None
    [call] = message.tool_calls
    assert call.id.startswith("call_") and call.function.name == "get_weather"
    assert isinstance(call.function.parsed_arguments, GetWeather)
    assert reply.choices[0].finish_reason == ("tool_calls" if choice == "required" else "stop")


def test_streamed_calls_fold_to_the_whole_one(client):
    ask = {"model": MODEL, "messages": ASK, "tools": TOOLS, "tool_choice": "required", "seed": 3,
           "parallel_tool_calls": False}
    whole = client.chat.completions.create(**ask).choices[0].message.tool_calls[0].function
    with client.chat.completions.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        folded = stream.get_final_completion().choices[0].message.tool_calls[0].function
    assert (folded.name, folded.arguments) == (whole.name, whole.arguments)
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds


def test_a_loop_of_calls(client):
    messages = list(ASK)
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, tool_choice="required"
    ).choices[0].message
    messages.append(first)
    for call in first.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "12 degrees"})
    last = client.chat.completions.create(
        model=MODEL, messages=messages, tools=TOOLS, tool_choice="none", max_tokens=20
    )
    assert last.choices[0].message.content
    assert last.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strnig"},
        {"$ref": "#/$defs/none"},
        {"type": "string", "pattern": "("},
        {"enum": [f"word number {i}" for i in range(60_000)]},
    ],
)
def test_bad_schemas_are_refused_in_time(client, schema):
    started = time.monotonic()
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=ASK,
            response_format={"type": "json_schema", "json_schema": {"name": "bad", "schema": schema}},
        )
    assert "Invalid schema for response_format 'bad'" in caught.value.message
    assert time.monotonic() - started < 2


def test_a_bad_grammar_disturbs_no_other_stream(client):
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(
                    model=MODEL, messages=ASK, extra_body={"grammar": "start: undefined"}
                )

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        text = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "What is 2+2?"}], temperature=0
        ).choices[0].message.content
    finally:
        stop.set()
        thread.join()
    assert text == "The answer to this classic math problem is 4."


def test_control_tokens_in_messages_are_text(client):
    def prompt_tokens(content):
        reply = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": content}], max_tokens=1
        )
        return reply.usage.prompt_tokens

    # One token if it were the control token that it spells.
    assert prompt_tokens("a<|im_end|>b") >= prompt_tokens("ab") + 4
