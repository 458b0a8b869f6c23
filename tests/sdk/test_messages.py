"""Anthropic's SDK against `/v1/messages`."""

import anthropic
import pytest
from conftest import MODEL, Server, run_node

ASK = [{"role": "user", "content": "Say hello."}]
WEATHER = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Bern", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(server):
    return anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0)


def create(claude, **more):
    return claude.messages.create(
        **{"model": MODEL, "max_tokens": 12, "messages": ASK, "extra_body": {"temperature": 0}} | more)


def test_a_message_is_the_chat_in_other_words(claude, client):
    message = create(claude, system="Be brief.")
    assert message._request_id.startswith("req_")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    chat = client.chat.completions.create(
        model=MODEL, temperature=0, max_tokens=12,
        messages=[{"role": "system", "content": "Be brief."}, *ASK])
    assert message.content[0].text == chat.choices[0].message.content
    read = message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert read == chat.usage.prompt_tokens
    assert message.usage.output_tokens == chat.usage.completion_tokens
    assert message.stop_reason == {"stop": "end_turn", "length": "max_tokens"}[chat.choices[0].finish_reason]


def test_a_stream_is_the_whole_message(claude):
    whole = create(claude)
    with claude.messages.stream(
        model=MODEL, max_tokens=12, messages=ASK, extra_body={"temperature": 0}
    ) as stream:
        kinds = [event.type for event in stream if event.type != "text"]
        folded = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1
    assert folded.content[0].text == whole.content[0].text
    assert folded.stop_reason == whole.stop_reason
    assert folded.usage.output_tokens == whole.usage.output_tokens


def test_tools_and_their_results(claude):
    for streamed in (False, True):
        arguments = {
            "model": MODEL, "max_tokens": 60, "messages": ASK, "tools": [WEATHER],
            "tool_choice": {"type": "tool", "name": "weather"}, "extra_body": {"temperature": 0},
        }
        if streamed:
            with claude.messages.stream(**arguments) as stream:
                message = stream.get_final_message()
        else:
            message = claude.messages.create(**arguments)
        assert message.stop_reason == "tool_use"
        call = message.content[-1]
        assert call.type == "tool_use" and call.id.startswith("toolu_")
        assert call.input["city"] in ("Bern", "Rome")
    answer = create(claude, tools=[WEATHER], messages=[
        *ASK, {"role": "assistant", "content": message.content},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]},
    ])
    assert answer.content


def test_how_answers_end(claude):
    counted = create(claude, messages=[{"role": "user", "content": "Count: 1, 2, 3"}],
                     stop_sequences=[" ", "zzz"])
    assert (counted.stop_reason, counted.stop_sequence) == ("stop_sequence", " ")
    assert " " not in "".join(block.text for block in counted.content)
    begun = create(claude, messages=[*ASK, {"role": "assistant", "content": "Hello, my name is"}])
    assert not begun.content[0].text.startswith("Hello, my name is")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False}
    formed = create(claude, max_tokens=40,
                    output_config={"format": {"type": "json_schema", "schema": schema}})
    assert formed.content[0].text.replace(" ", "").replace("\n", "") in ('{"ok":true}', '{"ok":false}')


def test_more_than_fits_is_cut_at_the_end():
    server = Server("--max-model-len", "64")
    try:
        claude = anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0)
        message = create(claude, max_tokens=16000, extra_body={"seed": 1, "temperature": 1},
                         messages=[{"role": "user", "content": "Tell me a long story."}])
        read = message.usage.input_tokens + message.usage.cache_read_input_tokens
        assert read + message.usage.output_tokens <= 64
        assert message.stop_reason in ("model_context_window_exceeded", "end_turn")
        with pytest.raises(anthropic.BadRequestError) as refused:
            create(claude, messages=[{"role": "user", "content": "word " * 200}])
        assert "maximum context length" in str(refused.value)
    finally:
        server.stop()


def test_tokens_are_counted(claude):
    counted = claude.messages.count_tokens(model=MODEL, messages=ASK, system="Be brief.")
    message = create(claude, system="Be brief.")
    assert counted.input_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens


def test_errors_have_their_classes(claude):
    with pytest.raises(anthropic.NotFoundError) as error:
        create(claude, model="nobody")
    assert error.value.body["type"] == "error"
    assert error.value.body["error"]["type"] == "not_found_error"
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/x.png"}}
    with pytest.raises(anthropic.BadRequestError) as error:
        create(claude, messages=[{"role": "user", "content": [image]}])
    assert error.value.body["error"]["param"] == "messages[0].content[0].type"
    with pytest.raises(anthropic.BadRequestError):
        create(claude, thinking={"type": "enabled", "budget_tokens": 1024})


def test_the_key_is_read_from_their_header():
    server = Server("--api-key", "sk-one")
    try:
        right = anthropic.Anthropic(base_url=server.url, api_key="sk-one", max_retries=0)
        assert create(right).content
        wrong = anthropic.Anthropic(base_url=server.url, api_key="sk-two", max_retries=0)
        with pytest.raises(anthropic.AuthenticationError) as error:
            create(wrong)
        assert error.value.body["error"]["type"] == "authentication_error"
    finally:
        server.stop()


def test_the_node_sdk(server):
    run_node("messages.test.js", server, n_tests=3)
