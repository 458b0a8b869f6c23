"""Hands out SDK clients that point at the real binary with the demo model."""

import openai
import pytest

from running import BINARY, MODEL, ROOT, Server, free_port, run_node, shared  # noqa: F401 (tests take them from here)


server = pytest.fixture(scope="session", name="server")(shared)


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def async_client(server):
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
