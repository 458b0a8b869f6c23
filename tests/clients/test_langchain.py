"""LangChain's `ChatOpenAI`, over chat completions and over responses."""

import asyncio

import httpx
import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

from questions import ANSWER, ASK, TOO_LONG, Weather
from running import MODEL


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def make(request, base_url):
    def make(**more):
        settings = {"model": MODEL, "temperature": 0, "use_responses_api": request.param, **more}
        # Of each its own connections, since they belong to the loop that first uses them.
        client = httpx.AsyncClient()
        return ChatOpenAI(base_url=base_url, api_key="unused", max_retries=0, http_async_client=client, **settings)

    return make


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"12 degrees in {city}"


def test_plain_and_streamed(make):
    whole = make().invoke(ASK)
    assert whole.text == ANSWER
    assert whole.usage_metadata["output_tokens"] == 12
    chunks = list(make(stream_usage=True).stream(ASK))
    folded = chunks[0]
    for chunk in chunks[1:]:
        folded += chunk
    assert folded.text == ANSWER and len(chunks) > 5
    assert folded.usage_metadata["output_tokens"] == 12
    assert asyncio.run(make().ainvoke(ASK)).text == ANSWER
    assert [reply.text for reply in make().batch([ASK, ASK])] == [ANSWER, ANSWER]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured(make, method):
    model = make().with_structured_output(Weather, method=method, include_raw=True)
    reply = model.invoke("The weather of Oslo?")
    assert reply["parsing_error"] is None
    assert isinstance(reply["parsed"], Weather)
    last = list(make().with_structured_output(Weather, method=method).stream("The weather of Oslo?"))[-1]
    assert isinstance(last, Weather)


def test_a_loop_of_calls(make):
    messages = [HumanMessage("What is the weather in Oslo?")]
    first = make(max_tokens=400).bind_tools([get_weather], tool_choice="any", strict=True).invoke(messages)
    assert first.tool_calls[0]["name"] == "get_weather"
    assert not first.invalid_tool_calls
    messages.append(first)
    for call in first.tool_calls:
        messages.append(get_weather.invoke(call))
    assert isinstance(messages[-1], ToolMessage)
    last = make(max_tokens=20).bind_tools([get_weather], tool_choice="none").invoke(messages)
    assert last.text and not last.tool_calls


def test_a_streamed_call_is_the_whole_one(make):
    model = make(max_tokens=200).bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    whole = model.invoke("What is the weather in Oslo?")
    folded = None
    for chunk in model.stream("What is the weather in Oslo?"):
        folded = chunk if folded is None else folded + chunk
    assert [(c["name"], c["args"]) for c in folded.tool_calls] == [(c["name"], c["args"]) for c in whole.tool_calls]


def test_logprobs_and_choices(make):
    if make().use_responses_api:
        return
    reply = make(logprobs=True, top_logprobs=2).invoke(ASK)
    assert len(reply.response_metadata["logprobs"]["content"]) >= 11
    result = make(n=2, temperature=1.0, seed=3, max_tokens=20).generate([[HumanMessage(ASK)]])
    assert len(result.generations[0]) == 2


def test_errors(make):
    with pytest.raises(ContextOverflowError):
        make().invoke(TOO_LONG)
    with pytest.raises(openai.NotFoundError):
        make(model="nope").invoke(ASK)


def test_completions(base_url):
    model = OpenAI(model=MODEL, base_url=base_url, api_key="unused", temperature=0, max_tokens=8)
    text = model.invoke("One, two, three,")
    assert text == "".join(model.stream("One, two, three,")) and text
