"""The README's quickstart, run as it is written, but for the port."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
ANSWER = "The answer to this classic math problem is 4."


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    found = [b for b in blocks if containing in b]
    assert len(found) == 1, f"one {language} block with {containing!r} in README.md"
    return found[0]


def run(command: list[str], **more) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python(server):
    code = block("python", "OpenAI(").replace("http://127.0.0.1:8000", server.url)
    assert run([sys.executable, "-c", code]).strip() == ANSWER


def test_node(server):
    code = block("js", "new OpenAI").replace("http://127.0.0.1:8000", server.url)
    node = HERE / "node_modules/.bin/node"
    assert run([node, "--input-type=module", "-e", code], cwd=HERE).strip() == ANSWER


def test_curl(server):
    code = block("sh", "curl ").replace("http://127.0.0.1:8000", server.url)
    assert ANSWER in run(["sh", "-c", code])
