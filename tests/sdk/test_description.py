"""`/openapi.json` is valid and true: requests drawn from it, valid and not, are answered as it says.

The hosted API's own description may be used as well: UNDERSTUDY_OFFICIAL_OPENAPI is the path of it.
"""

import html.parser
import json
import os
import pathlib
import subprocess
import sys
import urllib.request

import pytest
from conftest import Server, run_node

HERE = pathlib.Path(__file__).parent
OFFICIAL = os.environ.get("UNDERSTUDY_OFFICIAL_OPENAPI")
# Another one draws other requests.
SEED = os.environ.get("UNDERSTUDY_FUZZ_SEED", "7")
SECONDS = int(os.environ.get("UNDERSTUDY_FUZZ_SECONDS", "30"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Answers are short, however many tokens a drawn request asks for."""
    store = tmp_path_factory.mktemp("store")
    running = Server("--max-model-len", "64", "--max-choices-per-request", "4", "--store-dir", str(store))
    yield running
    running.stop()


def draw(server, description, checks, *more):
    """Runs schemathesis and returns what it says."""
    command = [
        pathlib.Path(sys.executable).parent / "schemathesis", "run", description,
        "--url", server.url, "--checks", checks, "--seed", SEED, "--no-shrink",
        "--max-time", str(SECONDS), "--request-timeout", "60", "--suppress-health-check", "all",
        "--generation-database", "none", "--warnings", "off", "--no-color",
        "--exclude-path-regex", "^/v1/(load|unload)_lora_adapter$", *more,
    ]
    done = subprocess.run(
        command, cwd=HERE, env=os.environ | {"SCHEMATHESIS_HOOKS": "description_hooks.py"},
        capture_output=True, text=True, timeout=SECONDS + 240,
    )
    said = "\n".join(line[:1000] for line in (done.stdout + done.stderr).splitlines())
    assert done.returncode == 0, said
    return done.stdout


CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
    "wrong_requests_are_refused,the_description_is_true"
)


def test_our_description(small):
    draw(small, f"{small.url}/openapi.json", CHECKS, "--phases", "coverage,fuzzing", "-n", "25")
    urllib.request.urlopen(f"{small.url}/health").read()


@pytest.mark.skipif(OFFICIAL is None, reason="UNDERSTUDY_OFFICIAL_OPENAPI names no file")
def test_the_official_description(small, tmp_path):
    ours = json.load(urllib.request.urlopen(f"{small.url}/openapi.json"))
    official = json.loads(pathlib.Path(OFFICIAL).read_text())
    served = {path.removeprefix("/v1") for path in ours["paths"] if path.startswith("/v1/")}
    same = {path.split("{")[0].rstrip("/") + "/{}" * path.count("{") for path in served}
    official["paths"] = {
        path: methods for path, methods in official["paths"].items()
        if path.split("{")[0].rstrip("/") + "/{}" * path.count("{") in same
    }
    assert len(official["paths"]) > 8
    # Of a few operations it has the error without what is around it, which no SDK could read.
    bare = [{"$ref": f"#/components/schemas/{name}"} for name in ("Error", "BetaError")]
    for methods in official["paths"].values():
        for operation in methods.values():
            answers = operation.get("responses", {}) if isinstance(operation, dict) else {}
            for status in [s for s in answers if s.startswith("4")]:
                contents = answers[status].get("content", {}).values()
                if any(content.get("schema") in bare for content in contents):
                    del answers[status]
    # A file may be uploaded for a purpose that no file may have.
    schemas = official["components"]["schemas"]
    had, asked = (schemas[name]["properties"]["purpose"]["enum"] for name in ("OpenAIFile", "CreateFileRequest"))
    had += set(asked) - set(had)
    file = tmp_path / "official.json"
    file.write_text(json.dumps(official))
    # It tells few error statuses, so of those only 5xx are too many.
    said = draw(small, file, "not_a_server_error,response_schema_conformance",
                "--url", f"{small.url}/v1", "--phases", "fuzzing", "-n", "50")
    print(said)


class Page(html.parser.HTMLParser):
    """Addresses that a page refers to, and the elements that it has ids for."""

    def __init__(self):
        super().__init__()
        self.addresses, self.ids = [], []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.ids += [found["id"]] if "id" in found else []


def test_the_page_needs_nothing_from_elsewhere(small):
    with urllib.request.urlopen(f"{small.url}/docs") as answer:
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        text = answer.read().decode()
    page = Page()
    page.feed(text)
    assert page.addresses == []
    assert "://" not in text
    assert {"operations", "about"} <= set(page.ids)


def test_the_page_shows_what_is_described(small):
    run_node("docs.test.js", small, n_tests=1)
