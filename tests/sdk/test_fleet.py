"""Many adapters: more than fit in memory, dealt out behind one name, kept over a restart, and on
the command line."""

import collections
import json
import re
import shutil
import subprocess
import urllib.request

import openai
import pytest

from conftest import BINARY, MODEL, ROOT, Server
from test_adapters import FIXTURES, ask, post

NAMES = ["intent", "pirate", "sentiment", "signoff"]
QUESTION = "What is the capital of France?"
COUNTERS = ["hits_total", "misses_total", "evictions_total", "failures_total"]


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        shutil.copytree(FIXTURES / f"smollm2-{name}", tmp_path / "root" / name)
    return tmp_path / "root"


def start(*flags):
    server = Server(*flags)
    return server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)


def series(server, name):
    """Values of a metric by its labels."""
    text = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
    found = {}
    for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.M):
        found[tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels)))] = float(value)
    return found


def by(server, name, **labels):
    """The sum of a metric where it has these labels."""
    return sum(
        value for own, value in series(server, name).items() if set(labels.items()) <= set(own)
    )


def test_more_adapters_than_fit_are_counted_exactly(root):
    for i in range(24):
        (root / f"fleet-{i:02}").symlink_to(root / NAMES[i % 4])
    server, client = start("--adapter-dir", str(root), "--max-loaded-adapters", "4")
    try:
        expected = {i: ask(client, NAMES[i], QUESTION, max_tokens=6)[0] for i in range(4)}
        n_asked = 4
        # Zipf by hand: the first often, the last once.
        order = [i for i in range(24) for _ in range(24 // (i + 1))]
        order = [order[i * 31 % len(order)] for i in range(len(order))]
        for i in order:
            n_asked += 1
            answer = ask(client, f"fleet-{i:02}", QUESTION, max_tokens=6)[0]
            assert answer == expected[i % 4], i
        hits, misses, evictions, failures = (
            server.metric(f"understudy_adapter_{name}") for name in COUNTERS
        )
        loaded = server.metric("understudy_adapters_loaded")
        assert (hits + misses, failures, loaded) == (n_asked, 0, 4)
        assert misses - evictions == loaded
        assert misses >= 28 and hits > 0
        states = [m.state for m in client.models.list() if m.id.startswith("fleet-")]
        assert states.count("loaded") <= 4 and len(states) == 24
    finally:
        server.stop()


def test_an_alias_deals_requests_out_and_keeps_conversations_together(root):
    alias = f"gpt-4o-mini={MODEL}*50,pirate*50,signoff*shadow"
    server, client = start(
        "--adapter-dir", str(root), "--alias", alias, "--embeddings", "mean",
        "--alias", f"text-embedding-3-small={MODEL}",
    )
    try:
        expected = {ask(client, name, QUESTION)[0]: name for name in [MODEL, "pirate"]}
        own_tokens = by(server, "understudy_tenant_generated_tokens_total", tenant="anonymous")
        targets = collections.Counter()
        for i in range(12):
            twice = [ask(client, "gpt-4o-mini", QUESTION, user=f"user-{i}") for _ in range(2)]
            assert twice[0][0] == twice[1][0], i
            assert twice[0][1].model == "gpt-4o-mini"
            targets[expected[twice[0][0]]] += 2
        assert len(targets) == 2, targets
        for target, n in targets.items():
            name = "understudy_alias_requests_total"
            assert by(server, name, alias="gpt-4o-mini", target=target, role="arm") == n
        shadow = {"alias": "gpt-4o-mini", "target": "signoff", "role": "shadow"}
        assert by(server, "understudy_alias_requests_total", **shadow) == 24
        assert by(server, "understudy_alias_failures_total", alias="gpt-4o-mini") == 0
        told = by(server, "understudy_tenant_generated_tokens_total", tenant="anonymous")
        answered = by(server, "understudy_alias_generated_tokens_total", role="arm")
        assert told - own_tokens == answered > 0
        vector = client.embeddings.create(model="text-embedding-3-small", input="Hello.")
        plain = client.embeddings.create(model=MODEL, input="Hello.")
        assert vector.model == "text-embedding-3-small"
        assert vector.data[0].embedding == plain.data[0].embedding
        wrong = subprocess.run(
            [BINARY, "serve", "--alias", "a=b*1,c"], capture_output=True, text=True
        )
        assert wrong.returncode != 0 and "`c` has no weight" in wrong.stderr
    finally:
        server.stop()


def test_what_was_loaded_is_known_after_a_restart(root, tmp_path):
    flags = ["--adapter-root", str(root), "--store-dir", str(tmp_path / "store")]
    server, client = start(*flags)
    try:
        for body in [
            {"lora_name": "parrot", "lora_path": "pirate", "pinned": True},
            {"lora_name": "clerk", "lora_path": "signoff"},
            {"lora_name": "gone", "lora_path": "intent"},
        ]:
            assert post(server, "load_lora_adapter", body)[0] == 200
        assert post(server, "unload_lora_adapter", {"lora_name": "gone"})[0] == 200
        before = ask(client, "parrot", QUESTION)[0]
    finally:
        server.stop()
    server, client = start(*flags, "--adapter-dir", str(root), "--pin", "sentiment")
    try:
        models = {model.id: model for model in client.models.list()}
        assert "gone" not in models
        assert models["parrot"].pinned and not models["clerk"].pinned
        assert (models["sentiment"].pinned, models["sentiment"].state) == (True, "loaded")
        assert ask(client, "parrot", QUESTION)[0] == before
    finally:
        server.stop()
    # What is not in the root any more is not loaded from there.
    shutil.move(root / "signoff", tmp_path / "signoff")
    (root / "signoff").symlink_to(tmp_path / "signoff")
    server, client = start(*flags)
    try:
        models = [model.id for model in client.models.list()]
        assert "parrot" in models and "clerk" not in models
    finally:
        server.stop()


def command(*args):
    done = subprocess.run([BINARY, "adapters", *args], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_adapters_on_the_command_line(root, tmp_path):
    code, told = command("list", str(root))
    assert code == 0 and all(name in told for name in NAMES), told
    code, told = command("inspect", str(root / "pirate"))
    assert code == 0 and "rank      4" in told and "q_proj" in told, told
    models = ROOT / "tests/fixtures/models"
    own = FIXTURES / "llama31-gqa-plain"
    code, told = command("verify", str(models / "llama31-gqa"), str(own))
    assert code == 0 and "fits" in told, told
    code, told = command("verify", str(models / "llama31-gqa"), str(own), str(root / "pirate"))
    assert code == 1 and "1 of 2" in told and "expected shape" in told, told
    out = tmp_path / "merged"
    merge = ["merge", str(models / "llama31-gqa"), f"{own}@0.5", "--output", str(out)]
    code, told = command(*merge)
    assert code == 0, told
    assert {"config.json", "model.safetensors"} <= {path.name for path in out.iterdir()}
    original = json.loads((models / "llama31-gqa/config.json").read_text())
    assert json.loads((out / "config.json").read_text()) == original
    code, told = command(*merge)
    assert code == 1 and "exists" in told, told
