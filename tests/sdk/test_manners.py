"""What the official SDK does around a request: raw responses, pages, retries, time limits."""

import threading
import time

import httpx2
import openai
import pytest

from running import MODEL, Server, run_node

ASK = [{"role": "user", "content": "What is 2+2?"}]
ANSWER = "The answer to this classic math problem is 4."


def test_raw_responses(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, temperature=0)
    assert raw.status_code == 200 and raw.headers["content-type"] == "application/json"
    assert raw.headers["x-request-id"] == raw.request_id == raw.parse()._request_id
    assert raw.headers["openai-processing-ms"].isdigit()
    assert raw.parse().choices[0].message.content == ANSWER
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASK, temperature=0, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])


def test_pages(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    made = [
        client.chat.completions.create(
            model=MODEL, messages=ASK, max_tokens=1, store=True, metadata={"from": "pages"}
        ).id
        for _ in range(5)
    ]
    page = client.chat.completions.list(metadata={"from": "pages"}, limit=2)
    assert [chat.id for chat in page.data] == made[:2] and page.has_next_page()
    assert [chat.id for chat in page.get_next_page().data] == made[2:4]
    newest = client.chat.completions.list(metadata={"from": "pages"}, limit=2, order="desc")
    assert [chat.id for chat in newest] == made[::-1]
    for id in made:
        client.chat.completions.delete(id)


def test_time_limits(client):
    ask = {"model": MODEL, "messages": ASK, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(**ask)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=httpx2.Timeout(5, read=0.3)).chat.completions.create(**ask)
    # Both are gone from the machine: an answer comes at once.
    assert client.with_options(timeout=20).chat.completions.create(model=MODEL, messages=ASK, max_tokens=2)


@pytest.fixture(scope="module")
def narrow():
    """A server that runs one request and lets one wait."""
    server = Server("--max-num-seqs", "1", "--max-queued-requests", "1")
    yield server
    server.stop()


class Crowd:
    """Two requests that take all there is, until it is left."""

    def __init__(self, server):
        self.server = server
        self.client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        self.streams = []

    def __enter__(self):
        def take():
            self.streams.append(self.client.chat.completions.create(
                model=MODEL, messages=ASK, max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
            ))

        for metric in ["understudy_sequences_running", "understudy_sequences_waiting"]:
            threading.Thread(target=take).start()
            deadline = time.monotonic() + 20
            while self.server.metric(metric) < 1:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return self

    def __exit__(self, *_):
        # Its connections end, and with them what they asked for.
        self.client.close()


def test_overload_is_an_error_with_a_time_to_wait(narrow):
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key="unused", max_retries=0)
    with Crowd(narrow):
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2)
    assert caught.value.code == "rate_limit_exceeded"
    headers = caught.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])


def test_retries_get_through_when_there_is_room(narrow):
    client = openai.OpenAI(base_url=f"{narrow.url}/v1", api_key="unused", max_retries=20)
    with Crowd(narrow) as crowd:
        threading.Timer(1.5, crowd.client.close).start()
        reply = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=2)
    assert reply.parse().choices and reply.retries_taken > 0


def test_node_helpers(server):
    run_node("helpers.test.js", server, 7)
