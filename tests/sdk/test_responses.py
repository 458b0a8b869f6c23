"""The Responses API, conversations and stored chats through the official Python SDK."""

import enum
import json
import time
from typing import Literal

import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from conftest import MODEL

ASK = "What is 2+2?"
ANSWER = "The answer to this classic math problem is 4."
EVENT = pydantic.TypeAdapter(ResponseStreamEvent)


class Answer(pydantic.BaseModel):
    class Colour(enum.Enum):
        red = "red"
        blue = "blue"

    colour: Colour
    sure: bool


class GetWeather(pydantic.BaseModel):
    """Weather of a city."""

    city: Literal["Paris", "Oslo"]


TOOLS = [openai.pydantic_function_tool(GetWeather, name="get_weather")["function"] | {"type": "function"}]


def test_create_and_retrieve(client):
    made = client.responses.create(model=MODEL, input=ASK, temperature=0, metadata={"a": "b"})
    assert made.output_text == ANSWER
    assert made.status == "completed" and made.usage.output_tokens == 12
    assert made._request_id
    read = client.responses.retrieve(made.id)
    assert read.to_dict() == made.to_dict()
    Response.model_validate(read.to_dict())
    items = list(client.responses.input_items.list(made.id))
    assert items[0].content[0].text == ASK
    assert client.responses.input_tokens.count(model=MODEL, input=ASK).input_tokens == made.usage.input_tokens
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_events_are_what_the_sdk_describes(client):
    stream = client.responses.create(model=MODEL, input=ASK, temperature=0, stream=True,
                                     include=["message.output_text.logprobs"], top_logprobs=2)
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event.to_dict())
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == ANSWER
    assert all(len(p.top_logprobs) == 2 for event in deltas for p in event.logprobs)


def test_stream_helper(client):
    with client.responses.stream(model=MODEL, input=ASK, temperature=0) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == ANSWER
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"


def test_parse_returns_the_model_class(client):
    parsed = client.responses.parse(model=MODEL, input="Which colour?", text_format=Answer)
    assert isinstance(parsed.output_parsed, Answer)
    with client.responses.stream(model=MODEL, input="Which colour?", text_format=Answer) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Answer)


def test_a_loop_of_calls(client):
    first = client.responses.create(model=MODEL, input="Weather?", tools=TOOLS, tool_choice="required",
                                    parallel_tool_calls=False)
    [call] = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] in {"Paris", "Oslo"}
    last = client.responses.create(
        model=MODEL, previous_response_id=first.id, tools=TOOLS, tool_choice="none", max_output_tokens=20,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}],
    )
    assert last.output_text
    with client.responses.stream(model=MODEL, input="Weather?", tools=TOOLS, tool_choice="required",
                                 parallel_tool_calls=False) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert final.output[0].type == "function_call"


def test_turns_in_a_conversation(client):
    conversation = client.conversations.create(metadata={"a": "b"})
    for text in ["My name is Ann.", "What is my name?"]:
        client.responses.create(model=MODEL, conversation=conversation.id, input=text, max_output_tokens=16)
    items = list(client.conversations.items.list(conversation.id, order="asc", limit=3))
    assert [item.role for item in items] == ["user", "assistant", "user", "assistant"]
    assert client.conversations.items.retrieve(items[0].id, conversation_id=conversation.id).id == items[0].id
    client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "Bye"}])
    client.conversations.update(conversation.id, metadata={"c": "d"})
    assert client.conversations.retrieve(conversation.id).metadata == {"c": "d"}
    assert client.conversations.delete(conversation.id).deleted


def test_background_and_resume(client):
    stream = client.responses.create(model=MODEL, input=ASK, temperature=0, background=True, stream=True)
    seen = []
    for event in stream:
        seen.append(event)
        if len(seen) == 5:
            break
    stream.close()
    rest = client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number)
    events = seen + list(rest)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == ANSWER

    queued = client.responses.create(model=MODEL, input="Tell a long story.", background=True,
                                     max_output_tokens=1500, extra_body={"ignore_eos": True})
    assert queued.status in {"queued", "in_progress"}
    cancelled = client.responses.cancel(queued.id)
    assert cancelled.status == "cancelled"
    queued = client.responses.create(model=MODEL, input=ASK, temperature=0, background=True)
    deadline = time.monotonic() + 30
    while (read := client.responses.retrieve(queued.id)).status in {"queued", "in_progress"}:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert read.output_text == ANSWER


def test_stored_chats(client):
    ask = {"model": MODEL, "messages": [{"role": "user", "content": ASK}], "temperature": 0}
    made = [client.chat.completions.create(**ask, store=True, metadata={"i": str(i)}) for i in range(3)]
    listed = [chat.id for chat in client.chat.completions.list(limit=2, model=MODEL)]
    assert [chat.id for chat in made] == [id for id in listed if id in {chat.id for chat in made}]
    assert [c.id for c in client.chat.completions.list(metadata={"i": "1"})] == [made[1].id]
    read = client.chat.completions.retrieve(made[0].id)
    assert read.choices[0].message.content == ANSWER
    [message] = client.chat.completions.messages.list(made[0].id)
    assert message.content == ASK
    assert client.chat.completions.update(made[0].id, metadata={"x": "y"}).metadata == {"x": "y"}
    assert client.chat.completions.delete(made[0].id).deleted


def test_the_same_key_gets_the_same_answer(client):
    ask = {"model": MODEL, "input": ASK, "extra_headers": {"Idempotency-Key": "sdk-1"}}
    assert client.responses.create(**ask).id == client.responses.create(**ask).id
    with pytest.raises(openai.ConflictError):
        client.responses.create(**ask, temperature=0)


def test_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_none")
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}])
    assert caught.value.param == "tools[0].type"
