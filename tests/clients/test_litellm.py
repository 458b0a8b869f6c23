"""LiteLLM, as a client of any OpenAI-compatible server."""

import asyncio
import json

import litellm
import pytest

from questions import ANSWER, ASK, TOO_LONG, Weather
from running import MODEL

ASKED = [{"role": "user", "content": ASK}]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": Weather.model_json_schema()},
}


@pytest.fixture(params=["openai", "hosted_vllm"])
def settings(request, base_url):
    return {
        "model": f"{request.param}/{MODEL}", "api_base": base_url, "api_key": "unused", "max_retries": 0,
        "temperature": 0,
    }


def test_plain_and_streamed(settings):
    reply = litellm.completion(messages=ASKED, **settings)
    assert reply.choices[0].message.content == ANSWER
    assert reply.usage.completion_tokens == 12
    chunks = list(litellm.completion(messages=ASKED, stream=True, stream_options={"include_usage": True}, **settings))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    rebuilt = litellm.stream_chunk_builder(chunks, messages=ASKED)
    assert rebuilt.choices[0].message.content == ANSWER and rebuilt.usage.completion_tokens == 12
    reply = asyncio.run(litellm.acompletion(messages=ASKED, **settings))
    assert reply.choices[0].message.content == ANSWER


def test_structured(settings):
    reply = litellm.completion(messages=ASKED, response_format=Weather, **settings)
    Weather.model_validate_json(reply.choices[0].message.content)
    reply = litellm.completion(
        messages=ASKED, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, **settings
    )
    [call] = reply.choices[0].message.tool_calls
    Weather.model_validate_json(call.function.arguments)
    chunks = list(litellm.completion(
        messages=ASKED, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, stream=True, **settings
    ))
    [folded] = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert json.loads(folded.function.arguments) == json.loads(call.function.arguments)


def test_errors(settings):
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(messages=[{"role": "user", "content": TOO_LONG}], **settings)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(messages=ASKED, **settings | {"model": settings["model"] + "-not"})
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(messages=ASKED, **settings | {"temperature": 9})


def test_completions_and_responses(base_url):
    settings = {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": "unused", "temperature": 0}
    reply = litellm.text_completion(
        **settings | {"model": f"text-completion-openai/{MODEL}"}, prompt="One, two, three,", max_tokens=8
    )
    assert reply.choices[0].text
    reply = litellm.responses(input=ASK, **settings)
    assert reply.output[0].content[0].text == ANSWER
    kinds = [event.type for event in litellm.responses(input=ASK, stream=True, **settings)]
    assert kinds[-1] == "response.completed"
