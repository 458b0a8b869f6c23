"""Runs the tests of the Vercel AI SDK against the same server."""

import pathlib

from running import run_node


def test_ai_sdk(server):
    run_node("ai_sdk.test.js", server, 12, pathlib.Path(__file__).parent)
