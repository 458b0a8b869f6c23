"""Several models in one process: each answers as it does alone, those that fit are in memory, and
others come and go."""

import concurrent.futures
import json
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

import openai
import pytest

from conftest import BINARY, MODEL, ROOT, Server
from test_adapters import FIXTURES, ask, post

MICRO = ROOT / "tests/fixtures/models"
QUESTION = "What is the capital of France?"
SMALL = ["--max-model-len", "256", "--kv-cache-memory", "64MiB", "--max-num-batched-tokens", "64"]


@pytest.fixture(scope="module")
def demo():
    fetched = subprocess.run([BINARY, "fetch"], capture_output=True, text=True, check=True)
    return fetched.stdout.strip()


def start(*flags):
    server = Server(*flags)
    return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)


def state(server):
    return json.load(urllib.request.urlopen(f"{server.url}/admin/state"))["other_models"]


def metrics(server):
    return urllib.request.urlopen(f"{server.url}/metrics").read().decode()


def complete(client, model, prompt="1 2 3", **extra):
    options = {"max_tokens": 8, "temperature": 0, **extra}
    return client.completions.create(model=model, prompt=prompt, **options)


def test_each_model_answers_as_it_does_alone(demo):
    alone = {}
    for name, path in [("llama", "llama31-gqa"), ("nemo", "mistral-nemo")]:
        server, client = start(str(MICRO / path), "--served-model-name", name, *SMALL)
        alone[name] = [complete(client, name, f"{i} 2 3").choices[0].text for i in range(8)]
        server.stop()
    server, client = start(
        "--model", f"demo={demo}", "--model", f"llama={MICRO / 'llama31-gqa'}",
        "--model", f"nemo={MICRO / 'mistral-nemo'}", "--model", f"again={demo}",
        "--adapter", f"pirate={FIXTURES / 'smollm2-pirate'}",
        "--adapter", f"again:signoff={FIXTURES / 'smollm2-signoff'}",
        "--alias", "gpt-4o-mini=again:signoff", "--alias", "gpt-4o=nemo*1,llama*1", *SMALL,
    )
    try:
        listed = {model.id: model for model in client.models.list()}
        assert {"demo", "llama", "nemo", "again", "pirate", "again:signoff", "gpt-4o"} <= set(listed)
        assert listed["nemo"].state == "loaded" and listed["again:signoff"].parent == "again"
        base = ask(client, "demo", QUESTION)[0]
        assert ask(client, "again", QUESTION)[0] == base
        pirate = ask(client, "pirate", QUESTION)[0]
        assert "ARRR" in pirate and ask(client, "demo:pirate", QUESTION)[0] == pirate
        assert "Kind regards" in ask(client, "again:signoff", "Name a bird.", max_tokens=64)[0]
        signoff = ask(client, "again:signoff", QUESTION)[0]
        assert ask(client, "gpt-4o-mini", QUESTION)[0] == signoff not in [base, pirate]

        def one(job):
            name, i = job
            if name == "demo":
                return ask(client, name, QUESTION)[0] == base
            return complete(client, name, f"{i} 2 3").choices[0].text == alone[name][i]

        jobs = [(name, i) for i in range(8) for name in ["llama", "demo", "nemo"]]
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            assert all(pool.map(one, jobs))
        for user in ["a", "b", "c", "d"]:
            answered = complete(client, "gpt-4o", "0 2 3", user=user)
            assert answered.choices[0].text in [alone["llama"][0], alone["nemo"][0]]
        for name in ["parrot", "llama:pirate", "again:pirate"]:
            with pytest.raises(openai.NotFoundError):
                complete(client, name)
        body = {"model": "nemo", "prompt": "1 2 3"}
        tokens = post(server, "tokenize", body)[1]
        assert json.loads(tokens)["max_model_len"] == 256
        text = metrics(server)
        for model in ["demo", "llama", "nemo", "again"]:
            assert re.search(rf'understudy_generated_tokens_total{{model="{model}"}} [1-9]', text)
            assert re.search(rf'vllm:generation_tokens_total{{.*model_name="{model}".*}} [1-9]', text)
        told = state(server)
        assert [model["state"] for model in told["models"]] == ["loaded"] * 3
        assert told["bytes_in_memory"] <= told["budget_bytes"]
    finally:
        server.stop()


def test_models_come_and_go_within_the_budget():
    kinds = {"a": "llama31-gqa", "b": "mistral-nemo", "c": "llama32-tied", "d": "llama-bias"}
    flags = [word for name, kind in kinds.items() for word in ["--model", f"{name}={MICRO / kind}"]]
    # Each is little more than its cache of 64 MiB: beside the first, two fit.
    server, client = start(*flags, *SMALL, "--model-memory", "220MiB")
    try:
        def loaded():
            told = state(server)
            assert told["bytes_in_memory"] <= told["budget_bytes"]
            return [model["name"] for model in told["models"] if model["state"] == "loaded"]

        assert loaded() == ["b", "c"]
        expected = {name: complete(client, name).choices[0].text for name in ["a", "b", "c"]}
        expected["d"] = complete(client, "d").choices[0].text
        # Whoever was used least recently goes.
        assert loaded() == ["c", "d"]
        for name, left in [("b", ["b", "d"]), ("d", ["b", "d"]), ("c", ["c", "d"])]:
            assert complete(client, name).choices[0].text == expected[name]
            assert loaded() == left
        # Many at once: one load, and all are answered.
        assert complete(client, "d").choices[0].text == expected["d"]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: complete(client, "b").choices[0].text, range(8)))
        assert answers == [expected["b"]] * 8
        assert loaded() == ["b", "d"]
        text = metrics(server)
        assert 'understudy_kv_blocks{model="c"} 0' in text
        assert re.search(r'understudy_kv_blocks{model="b"} [1-9]', text)
    finally:
        server.stop()


def test_nobody_is_unloaded_while_it_runs(demo):
    kinds = {"a": MICRO / "llama31-gqa", "b": demo, "c": MICRO / "mistral-nemo"}
    flags = [word for name, path in kinds.items() for word in ["--model", f"{name}={path}"]]
    server, client = start(*flags, *SMALL, "--model-memory", "270MiB")
    try:
        expected = complete(client, "a").choices[0].text
        stream = complete(
            client, "b", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
        )
        next(stream)
        with pytest.raises(openai.InternalServerError) as caught:
            complete(client, "c")
        assert (caught.value.status_code, caught.value.code) == (503, "model_not_loaded")
        assert int(caught.value.response.headers["retry-after"]) > 0
        assert complete(client, "a").choices[0].text == expected
        chunks = list(stream)
        assert chunks[-1].choices[0].finish_reason == "length" and len(chunks) > 100
        assert complete(client, "c").choices[0].text
        states = {model["name"]: model["state"] for model in state(server)["models"]}
        assert states == {"b": "on_disk", "c": "loaded"}
    finally:
        server.stop()


def test_what_models_have_in_common_is_held_once(demo):
    flags = [word for name in ["a", "b", "c"] for word in ["--model", f"{name}={demo}"]]
    server, client = start(*flags, *SMALL, "--model-memory", "1GiB")
    try:
        told = state(server)
        alone = told["models"][0]["bytes"]
        weights = pathlib.Path(demo).stat().st_size
        assert told["bytes_in_memory"] < 3 * alone - 1.5 * weights
        answers = {ask(client, name, QUESTION)[0] for name in ["a", "b", "c"]}
        assert len(answers) == 1
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--model-memory", "150MiB"], "--model-memory is 150.0 MiB"),
        (["--device", "cpu", "--model", "x=/nowhere"], "/nowhere"),
        (["--adapter", "z:a=/nowhere"], "no model `z`"),
    ],
)
def test_what_cannot_be_served_is_told_at_the_start(demo, flags, word):
    words = ["--model", f"a={MICRO / 'llama31-gqa'}", "--model", f"b={demo}", "--port", "0"]
    done = subprocess.run(
        [BINARY, "serve", *words, *SMALL, *flags], capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and word in done.stderr, done.stderr
