"""One server with the demo model for all third-party clients."""

import os

import pytest

from running import shared

# What clients would say of themselves over the network.
os.environ |= {"LANGSMITH_TRACING": "false", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1"}


server = pytest.fixture(scope="session", name="server")(shared)


@pytest.fixture(scope="session")
def base_url(server):
    return f"{server.url}/v1"
