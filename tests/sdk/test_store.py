"""What was acknowledged is there after the server was killed, and nothing is there by halves."""

import hashlib
import os
import random
import shutil
import subprocess
import threading
import time

import openai

from conftest import BINARY, MODEL, Server

# 10 rounds by default; more by the environment.
ROUNDS = int(os.environ.get("UNDERSTUDY_KILL_ROUNDS", "10"))
SEED = int(os.environ.get("UNDERSTUDY_KILL_SEED", str(random.randrange(10**6))))
N_CLIENTS = 4


def write_until_killed(server, acknowledged, conversation, rng):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=20)
    i = 0
    try:
        while True:
            i += 1
            if i % 3 == 0:
                content = rng.randbytes(rng.choice([0, 10, 100_000, 3_000_000]))
                # Its name says what is in it, so that also a file that nobody was told of must be whole.
                name = hashlib.sha256(content).hexdigest()
                acknowledged.append(("file", client.files.create(file=(name, content), purpose="user_data")))
                continue
            ask = {"model": MODEL, "input": f"{i}", "max_output_tokens": 16, "metadata": {"i": str(i)}}
            if i % 4 == 0:
                for event in client.responses.create(**ask, stream=True):
                    if event.type in {"response.completed", "response.incomplete"}:
                        acknowledged.append(("response", event.response))
            elif i % 4 == 1:
                messages = [{"role": "user", "content": "x"}]
                chat = client.chat.completions.create(model=MODEL, messages=messages, store=True, max_tokens=4)
                acknowledged.append(("chat", chat))
            elif i % 4 == 2:
                acknowledged.append(("background", client.responses.create(**ask, background=True)))
            else:
                made = client.responses.create(**ask, conversation=conversation, truncation="auto")
                acknowledged.append(("response", made))
    except openai.APIConnectionError:
        pass
    except Exception as error:  # a stream that ends in the middle is one of httpx's own errors
        if "httpx" not in type(error).__module__ and "httpcore" not in type(error).__module__:
            acknowledged.append(("error", error))


def check(client, acknowledged, conversation):
    said = [item.id for item in client.conversations.items.list(conversation, order="asc", limit=100)]
    for kind, made in acknowledged:
        if kind == "error":
            raise made
        if kind == "file":
            continue  # All files are looked at below.
        if kind == "chat":
            read = client.chat.completions.retrieve(made.id)
            assert read.choices[0].message.content == made.choices[0].message.content
            continue
        read = client.responses.retrieve(made.id)
        if kind == "background":
            assert read.status in {"completed", "incomplete", "failed"}, read.status
            assert read.metadata == made.metadata
        else:
            assert read.to_dict() == made.to_dict()
            # Answer and conversation are written at once.
            assert not made.conversation or made.output[0].id in said
        assert list(client.responses.input_items.list(made.id))


def check_files(client, acknowledged, directory):
    """Those that were acknowledged are listed, all that are listed are whole, and nothing else lies there."""
    listed = {file.id: file for file in client.files.list()}
    for made in (made for kind, made in acknowledged if kind == "file"):
        assert listed[made.id] == made
    for file in listed.values():
        content = client.files.content(file.id).read()
        assert len(content) == file.bytes and hashlib.sha256(content).hexdigest() == file.filename
    assert {path.name for path in (directory / "files").iterdir()} == set(listed)


def test_killed_at_random_moments(tmp_path):
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    directory = tmp_path / "store"
    acknowledged, conversation = [], None
    for _ in range(ROUNDS):
        server = Server("--store-dir", str(directory), "--max-model-len", "512")
        try:
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
            if conversation is None:
                conversation = client.conversations.create().id
            check(client, acknowledged[-60:], conversation)
            check_files(client, acknowledged, directory)
            threads = [
                threading.Thread(target=write_until_killed, args=(server, acknowledged, conversation, random.Random(rng.random())))
                for _ in range(N_CLIENTS)
            ]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.1, 1.2))
        finally:
            server.process.kill()
            server.process.wait(timeout=20)
        for thread in threads:
            thread.join()
    server = Server("--store-dir", str(directory), "--max-model-len", "512")
    try:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
        check(client, acknowledged, conversation)
        check_files(client, acknowledged, directory)
        n_files = sum(kind == "file" for kind, _ in acknowledged)
        print(f"{ROUNDS} rounds, {len(acknowledged)} acknowledged, of which {n_files} files")
        assert len(acknowledged) > ROUNDS and n_files > 0
        # The directory has one owner.
        second = subprocess.run([BINARY, "serve", "--port", "0", "--store-dir", directory],
                                capture_output=True, text=True, timeout=60)
        assert second.returncode != 0 and "another process uses" in second.stderr
    finally:
        server.stop()
    shutil.rmtree(directory)
