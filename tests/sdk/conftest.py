"""Hands out SDK clients that point at the real binary with the demo model."""

import os

import openai
import pytest

from running import BINARY, MODEL, ROOT, Guest, Server, free_port, run_node  # noqa: F401 (tests take them from here)


@pytest.fixture(scope="session")
def server():
    url = os.environ.get("UNDERSTUDY_URL")
    running = Guest(url) if url else Server()
    yield running
    running.stop()


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def async_client(server):
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
