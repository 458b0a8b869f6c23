"""Starts the real binary with the demo model."""

import os
import pathlib
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("UNDERSTUDY_BIN", ROOT / "target/release/understudy"))
MODEL = "SmolLM2-135M-Instruct"
START_LIMIT_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running `understudy serve`."""

    def __init__(self, *flags: str, wait: bool = True):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # A file, since a pipe that nobody reads is full at some time and then stops the server.
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [BINARY, "serve", "--port", str(self.port), *flags],
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        if wait:
            self.wait_until_ready()

    def listens(self) -> bool:
        """Whether the socket is there, which is long before the model is."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(f"server exited: {self.log.read().decode()}")
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).read()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("server did not become ready")

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels, or one series if labels are given."""
        text = urllib.request.urlopen(f"{self.url}/metrics").read().decode()
        lines = [line for line in text.splitlines() if line.startswith((name + " ", name + "{"))]
        assert lines, f"no metric {name} in\n{text}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        finally:
            self.process.kill()


class Guest(Server):
    """A server that somebody else has started, such as in an image."""

    def __init__(self, url: str):
        self.url = url

    def stop(self) -> None:
        pass


def shared():
    """A fixture's server for a whole run of tests: the one that UNDERSTUDY_URL names, or one of its own."""
    url = os.environ.get("UNDERSTUDY_URL")
    running = Guest(url) if url else Server()
    yield running
    running.stop()


def run_node(file: str, server: Server, n_tests: int, here: pathlib.Path = ROOT / "tests/sdk") -> None:
    """Runs a file of Node tests in `here` against a server; all of them must pass."""
    done = subprocess.run(
        [here / "node_modules/.bin/node", "--test", "--test-reporter=tap", file],
        cwd=here,
        env=os.environ | {"UNDERSTUDY_URL": server.url},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"# pass {n_tests}\n" in done.stdout, done.stdout
