"""Many clients at once, some of which hang up: nobody else notices and nothing leaks."""

import asyncio
import time

import openai

from conftest import MODEL

N_CLIENTS = 64
N_HANGING_UP = 16
SUBJECTS = ["the sea", "a clock", "bread", "snow", "an owl", "music", "a bridge", "tea"]


def request(i: int) -> dict:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Write one line number {i} about {SUBJECTS[i % 8]}."}],
        "temperature": 0.7,
        "seed": i,
        "max_tokens": 24 + i % 5,
    }


async def text_of(client, i: int) -> str:
    stream = await client.chat.completions.create(stream=True, **request(i))
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def hang_up(client, i: int) -> None:
    stream = await client.chat.completions.create(
        stream=True, **request(i) | {"max_tokens": 400}, extra_body={"ignore_eos": True}
    )
    n_chunks = 0
    async for _ in stream:
        n_chunks += 1
        if n_chunks > i % 4:
            break
    await stream.close()


def test_64_streams_16_disconnects(server):
    async def alone():
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        async with client:
            return [await text_of(client, i) for i in range(N_HANGING_UP, N_CLIENTS)]

    async def together():
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        async with client:
            return await asyncio.gather(
                *[hang_up(client, i) for i in range(N_HANGING_UP)],
                *[text_of(client, i) for i in range(N_HANGING_UP, N_CLIENTS)],
            )

    crowd = asyncio.run(together())[N_HANGING_UP:]
    deadline = time.monotonic() + 10
    while server.metric("understudy_kv_blocks_in_use") > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.metric("understudy_kv_blocks_in_use") == 0
    assert server.metric("understudy_sequences_running") == 0
    assert server.metric("understudy_sequences_waiting") == 0
    assert crowd == asyncio.run(alone())
