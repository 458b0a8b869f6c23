"""Instructor, in each of its modes."""

import instructor
import openai
import pytest

from questions import Weather
from running import MODEL

ASK = [{"role": "user", "content": "The weather of Oslo?"}]
MODES = [
    instructor.Mode.TOOLS,
    instructor.Mode.TOOLS_STRICT,
    instructor.Mode.JSON_SCHEMA,
    instructor.Mode.RESPONSES_TOOLS,
]


def client(base_url, mode):
    plain = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0)
    return instructor.from_openai(plain, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_a_model_comes_back(base_url, mode):
    made = client(base_url, mode).create(
        model=MODEL, messages=ASK, response_model=Weather, max_retries=0, temperature=0
    )
    assert isinstance(made, Weather)


@pytest.mark.parametrize("mode", MODES[:3])
def test_partial_and_many(base_url, mode):
    partial = list(client(base_url, mode).create_partial(
        model=MODEL, messages=ASK, response_model=Weather, max_retries=0, temperature=0
    ))
    Weather.model_validate(partial[-1].model_dump())
    assert len(partial) > 1
