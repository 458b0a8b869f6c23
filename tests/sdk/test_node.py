"""Runs the Node SDK's tests against the same server."""

from conftest import run_node


def test_node_sdk(server):
    run_node("sdk.test.js", server, 10)
