"""Runs the Node SDK's tests against the same server."""

import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def test_node_sdk(server):
    done = subprocess.run(
        [HERE / "node_modules/.bin/node", "--test", "--test-reporter=tap", "sdk.test.js"],
        cwd=HERE,
        env=os.environ | {"UNDERSTUDY_URL": server.url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 10" in done.stdout, done.stdout
