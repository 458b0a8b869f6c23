"""LlamaIndex's `OpenAILike`."""

import asyncio

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from questions import ANSWER, ASK, Weather
from running import MODEL


@pytest.fixture
def make(base_url):
    def make(**more):
        settings = {"is_chat_model": True, "is_function_calling_model": True, "temperature": 0, **more}
        return OpenAILike(
            model=MODEL, api_base=base_url, api_key="unused", context_window=8192, max_retries=0, **settings
        )

    return make


def test_plain_and_streamed(make):
    ask = [ChatMessage(role="user", content=ASK)]
    assert make().chat(ask).message.content == ANSWER
    assert make().complete(ASK).text == ANSWER
    pieces = list(make().stream_chat(ask))
    assert pieces[-1].message.content == ANSWER == "".join(piece.delta or "" for piece in pieces)
    assert asyncio.run(make().achat(ask)).message.content == ANSWER


def test_completions(make):
    model = make(is_chat_model=False, max_tokens=8)
    text = model.complete("One, two, three,").text
    assert text == list(model.stream_complete("One, two, three,"))[-1].text and text


def test_structured(make):
    prompt = PromptTemplate("The weather of {city}?")
    assert isinstance(make().structured_predict(Weather, prompt, city="Oslo"), Weather)
    reply = make(should_use_structured_outputs=True).structured_predict(Weather, prompt, city="Oslo")
    assert isinstance(reply, Weather)
    assert isinstance(make().as_structured_llm(Weather).complete("The weather of Oslo?").raw, Weather)


def test_calls(make):
    asked = []

    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "12 degrees"

    tool = FunctionTool.from_defaults(get_weather)
    reply = make(max_tokens=400).chat_with_tools(
        [tool], user_msg="What is the weather in Oslo?", tool_required=True, allow_parallel_tool_calls=False
    )
    [call] = make().get_tool_calls_from_response(reply)
    assert call.tool_name == "get_weather" and "city" in call.tool_kwargs
    tool.call(**call.tool_kwargs)
    assert asked == [call.tool_kwargs["city"]]
