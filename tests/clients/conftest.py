"""One server with the demo model for all third-party clients."""

import os

import pytest

from running import Guest, Server

# What clients would say of themselves over the network.
os.environ |= {"LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


@pytest.fixture(scope="session")
def server():
    url = os.environ.get("UNDERSTUDY_URL")
    running = Guest(url) if url else Server()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def base_url(server):
    return f"{server.url}/v1"
