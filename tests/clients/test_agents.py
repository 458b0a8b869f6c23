"""The agents SDK, over responses (its default) and over chat completions."""

import asyncio

import openai
import pytest
from agents import (
    Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool,
    set_tracing_disabled,
)

from questions import ANSWER, ASK, Weather
from running import MODEL

set_tracing_disabled(True)
CALLED = []


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    CALLED.append(city)
    return f"12 degrees in {city}"


@pytest.fixture(params=[OpenAIResponsesModel, OpenAIChatCompletionsModel])
def make(request, base_url):
    def make(**more):
        # The client belongs to the loop that first uses it.
        client = openai.AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0)
        model = request.param(model=MODEL, openai_client=client)
        settings = ModelSettings(temperature=0, max_tokens=300, **more.pop("settings", {}))
        return Agent(name="Tester", model=model, model_settings=settings, **more)

    return make


def test_plain_and_streamed(make):
    assert Runner.run_sync(make(), ASK).final_output == ANSWER

    async def streamed():
        run = Runner.run_streamed(make(), ASK)
        deltas = [
            event.data.delta async for event in run.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return run.final_output, deltas

    final, deltas = asyncio.run(streamed())
    assert final == ANSWER == "".join(deltas)


def test_structured(make):
    run = Runner.run_sync(make(output_type=Weather), "The weather of Oslo?")
    assert isinstance(run.final_output, Weather)


def test_tools_are_run_and_answered(make):
    CALLED.clear()
    agent = make(
        tools=[get_weather], settings={"tool_choice": "required", "parallel_tool_calls": False},
        instructions="Answer in one short sentence.",
    )
    run = Runner.run_sync(agent, "What is the weather in Oslo?", max_turns=6)
    assert CALLED and isinstance(run.final_output, str)
    kinds = [item.type for item in run.new_items]
    assert kinds[:2] == ["tool_call_item", "tool_call_output_item"] and kinds[-1] == "message_output_item"
    # The whole history goes back as input.
    again = Runner.run_sync(make(), run.to_input_list() + [{"role": "user", "content": ASK}])
    assert again.final_output
