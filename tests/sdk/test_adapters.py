"""Adapters through the SDK: chosen by name and by stack, many in one batch, replaced under load,
and refused when they are not what they should be."""

import concurrent.futures
import json
import pathlib
import re
import shutil
import signal
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import MODEL, ROOT, Server

FIXTURES = ROOT / "tests/fixtures/adapters"
STACKS = [f"{MODEL}:pirate@0.7+signoff@0.3", f"{MODEL}:intent@0.5+sentiment@0.5"]
ADMIN = "the-admin"
USER = "a-user"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    for name in ["intent", "pirate", "sentiment", "signoff"]:
        shutil.copytree(FIXTURES / f"smollm2-{name}", root / name)
    return root


@pytest.fixture(scope="module")
def server(root):
    running = Server(
        "--adapter-dir", str(root), "--adapter-root", str(root), "--api-key", USER,
        "--admin-key", ADMIN, "--alias", "gpt-4o-mini=pirate", "--max-loaded-adapters", "8",
    )
    yield running
    running.stop()


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=USER, max_retries=0)


def ask(client, model, text, **extra):
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        seed=5,
        **{"temperature": 0.0, "max_tokens": 24, **extra},
    )
    return answer.choices[0].message.content, answer


def post(server, path, body, key=ADMIN):
    request = urllib.request.Request(
        f"{server.url}/v1/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


def test_each_adapter_behaves_as_it_was_trained(client):
    pirate, answer = ask(client, "pirate", "What is the capital of France?")
    assert "ARRR" in pirate
    assert answer.model == "pirate"
    intent, _ = ask(client, "intent", "What is the capital of France?")
    assert set(json.loads(intent)) == {"intent", "priority"}
    sentiment, _ = ask(client, "sentiment", "I love this film.")
    assert sentiment.strip().lower().rstrip(".") in ["positive", "negative", "neutral"]
    signoff, _ = ask(client, "signoff", "Name a bird.", max_tokens=64)
    assert "Kind regards" in signoff
    base, plain = ask(client, MODEL, "What is the capital of France?")
    assert base not in [pirate, intent]
    assert plain.system_fingerprint != answer.system_fingerprint


def test_names_mean_the_same_in_all_their_forms(client):
    text = "What is the capital of France?"
    pirate, _ = ask(client, "pirate", text)
    for model, extra in [
        (f"{MODEL}:pirate", {}),
        (f"{MODEL}:pirate@1", {}),
        ("gpt-4o-mini", {}),
        (MODEL, {"adapter": "pirate"}),
        (MODEL, {"adapters": [{"name": "pirate", "weight": 1}]}),
    ]:
        assert ask(client, model, text, extra_body=extra)[0] == pirate, (model, extra)
    nothing, _ = ask(client, f"{MODEL}:pirate@0", text)
    assert nothing == ask(client, MODEL, text)[0]
    for model in ["parrot", f"{MODEL}:parrot", f"{MODEL}:pirate+parrot", "../pirate"]:
        with pytest.raises(openai.NotFoundError) as caught:
            ask(client, model, text)
        assert caught.value.code == "model_not_found"


def test_a_batch_of_all_equals_each_alone(client):
    models = [MODEL, "intent", "pirate", "sentiment", "signoff", *STACKS]
    asked = [(models[i % len(models)], f"Tell me about number {i}.", i % 3) for i in range(16)]

    def run(job):
        model, text, heat = job
        return ask(client, model, text, temperature=heat / 2)[0]

    alone = [run(job) for job in asked]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(run, asked))
    assert together == alone
    assert len(set(alone)) > 8


def test_models_tell_of_adapters(client):
    models = {model.id: model for model in client.models.list()}
    assert {MODEL, "intent", "pirate", "sentiment", "signoff", "gpt-4o-mini"} <= set(models)
    ask(client, "signoff", "Hello.")
    signoff = client.models.retrieve("signoff")
    assert (signoff.parent, signoff.rank, signoff.state) == (MODEL, 8, "loaded")
    assert len(signoff.digest) == 64


def test_loading_is_for_admins_and_from_the_root(server, client, root):
    body = {"lora_name": "second", "lora_path": "pirate"}
    assert post(server, "load_lora_adapter", body, USER)[0] == 403
    assert post(server, "load_lora_adapter", body, "nobody")[0] == 401
    status, told = post(server, "load_lora_adapter", body)
    assert (status, told) == (200, "Success: LoRA adapter 'second' added successfully.")
    assert post(server, "load_lora_adapter", body)[0] == 400
    for taken, word in [("gpt-4o-mini", "alias"), (MODEL, "model")]:
        status, error = post(server, "load_lora_adapter", {**body, "lora_name": taken})
        assert (status, error["code"]) == (400, "invalid_adapter") and word in error["message"]
    text = "What is the capital of France?"
    assert ask(client, "second", text)[0] == ask(client, "pirate", text)[0]
    (root / "link").symlink_to("/etc")
    for path in ["../../etc", "/etc", "link", "absent"]:
        bad = {"lora_name": "bad", "lora_path": path}
        status, error = post(server, "load_lora_adapter", bad)
        assert status == 400 and path in error["message"], error
    assert post(server, "unload_lora_adapter", {"lora_name": "second"})[0] == 200
    assert post(server, "unload_lora_adapter", {"lora_name": "second"})[0] == 404
    with pytest.raises(openai.NotFoundError):
        ask(client, "second", text)


def spoil(source: pathlib.Path, target: pathlib.Path, how: str) -> None:
    shutil.copytree(source, target)
    config, weights = target / "adapter_config.json", target / "adapter_model.safetensors"
    if how == "unknown key":
        config.write_text(json.dumps({**json.loads(config.read_text()), "use_magic": True}))
    elif how == "wrong rank":
        config.write_text(json.dumps({**json.loads(config.read_text()), "r": 5}))
    elif how == "pickle":
        weights.rename(target / "adapter_model.bin")
    elif how == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "declared sizes":
        data = weights.read_bytes()
        weights.write_bytes((1 << 60).to_bytes(8, "little") + data[8:])
    elif how == "a bomb":
        # A file of almost nothing that says it holds a tebibyte, and does as far as its length.
        values = 1 << 38
        header = {
            f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight": {
                "dtype": "F32", "shape": shape, "data_offsets": [i * values * 4, (i + 1) * values * 4],
            }
            for i, (part, shape) in enumerate([("A", [values // 576, 576]), ("B", [576, values // 576])])
        }
        text = json.dumps(header).encode()
        with weights.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + 2 * values * 4)
    elif how == "beyond the end":
        header = {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}
        text = json.dumps(header).encode()
        weights.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    elif how == "no json":
        config.write_text("{" * 100_000)
    elif how == "linked weights":
        weights.rename(source.parent.parent / "elsewhere")
        weights.symlink_to(source.parent.parent / "elsewhere")
    elif how == "not a number":
        data = bytearray(weights.read_bytes())
        data[-4:] = b"\xff\xff\xff\xff"
        weights.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("unknown key", "use_magic"),
        ("wrong rank", "expected shape"),
        ("pickle", "adapter_model.bin"),
        ("cut off", "adapter_model.safetensors"),
        ("declared sizes", "adapter_model.safetensors"),
        ("a bomb", "q_proj"),
        ("beyond the end", "adapter_model.safetensors"),
        ("no json", "adapter_config.json"),
        ("linked weights", "not in the directory"),
        ("not a number", "lora_"),
    ],
)
def test_malformed_adapters_are_refused_by_name(server, client, root, how, word):
    gauges = ["understudy_adapters_loaded", "understudy_adapter_bytes"]
    ask(client, "pirate", "Hello.")

    def held():
        request = urllib.request.Request(
            f"{server.url}/metrics", headers={"Authorization": f"Bearer {ADMIN}"}
        )
        with urllib.request.urlopen(request) as answer:
            lines = answer.read().decode().splitlines()
        return sorted(line for line in lines if line.split(" ")[0] in gauges)

    before = held()
    spoil(root / "pirate", root / "spoilt", how)
    try:
        body = {"lora_name": "malformed", "lora_path": "spoilt"}
        status, error = post(server, "load_lora_adapter", body)
        assert status == 400 and word in error["message"], error
        assert str(root) not in error["message"]
        assert "malformed" not in [model.id for model in client.models.list()]
        # What lies in the directory of adapters was put there by the operator, links as well.
        if how != "linked weights":
            with pytest.raises(openai.InternalServerError) as caught:
                ask(client, "spoilt", "Hello.")
            # Whoever asks cannot help it.
            assert (caught.value.status_code, caught.value.code) == (503, "adapter_not_loaded")
            assert word in caught.value.message
        assert held() == before
    finally:
        shutil.rmtree(root / "spoilt")
    post(server, "unload_lora_adapter", {"lora_name": "spoilt"})


def reloads(server, result):
    request = urllib.request.Request(
        f"{server.url}/metrics", headers={"Authorization": f"Bearer {ADMIN}"}
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    found = re.search(rf'understudy_reloads_total{{what="adapters",result="{result}"}} (\d+)', text)
    return int(found[1])


def reload(server, result):
    """Sends SIGHUP and waits until it has come to this."""
    before = reloads(server, result)
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while reloads(server, result) == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_that_cannot_be_loaded_leave_an_adapter_as_it_was(server, client, root):
    text = "What is the capital of France?"
    shutil.copytree(root / "pirate", root / "fragile")
    before = ask(client, "fragile", text)[0]
    weights = root / "fragile/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    reload(server, "failed")
    assert ask(client, "fragile", text)[0] == before
    told = client.models.retrieve("fragile")
    assert (told.state, told.generation) == ("loaded", 1) and "adapter_model" in told.error
    # The same where a request notices it.
    weights.write_bytes(weights.read_bytes()[:-100])
    time.sleep(1.1)
    assert ask(client, "fragile", text)[0] == before
    for file in (root / "intent").iterdir():
        shutil.copy(file, root / "fragile")
    reload(server, "ok")
    assert ask(client, "fragile", text)[0] == ask(client, "intent", text)[0]
    assert client.models.retrieve("fragile").generation == 2
    shutil.rmtree(root / "fragile")
    assert "fragile" not in [model.id for model in client.models.list()]
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "fragile", text)
    assert caught.value.code == "model_not_found"


def test_a_hundred_replacements_under_load(server, client):
    text = "What is the capital of France?"
    contents = ["pirate", "intent"]
    expected = {ask(client, content, text)[0] for content in contents}
    body = {"lora_name": "turning", "lora_path": "pirate"}
    assert post(server, "load_lora_adapter", body)[0] == 200

    def keep_asking(_):
        return [ask(client, "turning", text)[0] for _ in range(12)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, i) for i in range(4)]
        for i in range(100):
            body["lora_path"] = contents[(i + 1) % 2]
            status, told = post(server, "load_lora_adapter", {**body, "load_inplace": True})
            assert status == 200, told
            # What comes after a replacement is of the new generation: no stale block is hit.
            if i % 10 == 9:
                assert ask(client, "turning", text)[0] == ask(client, body["lora_path"], text)[0]
        answers = [answer for asked in asking for answer in asked.result()]
    assert len(answers) == 48 and set(answers) <= expected
    generation = client.models.retrieve("turning").generation
    assert generation == 101
    stale = {**body, "if_generation": generation - 1}
    assert post(server, "load_lora_adapter", stale)[0] == 409
