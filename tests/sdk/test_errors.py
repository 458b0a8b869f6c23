"""Errors arrive as the SDK's exception classes, with the hosted API's type, code and param."""

import openai
import pytest

from conftest import MODEL, Server

ASK = [{"role": "user", "content": "hi"}]


def chat(client, **more):
    return client.chat.completions.create(**{"model": MODEL, "messages": ASK, **more})


def test_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-4o-mini")
    assert caught.value.code == "model_not_found"
    assert caught.value.type == "invalid_request_error"
    assert "gpt-4o-mini" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/name:other")


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.5}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"logit_bias": {"504": 101}}, "logit_bias"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"extra_body": {"no_such_thing": 1}}, "no_such_thing"),
        ({"extra_body": {"min_p": 2}}, "min_p"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
    ],
)
def test_bad_parameter_is_named(client, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **more)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param and caught.value.param.startswith(param)
    assert caught.value.request_id


def test_context_overflow_gives_the_counts(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, messages=[{"role": "user", "content": "word " * 9000}])
    assert caught.value.code == "context_length_exceeded"
    assert "maximum context length is 8192 tokens" in caught.value.message
    assert caught.value.param == "messages"


def test_api_key_is_required_when_set():
    server = Server("--api-key", "sk-right")
    try:
        good = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-right", max_retries=0)
        assert chat(good, max_tokens=1).choices
        bad = openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            chat(bad)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            bad.models.list()
    finally:
        server.stop()
