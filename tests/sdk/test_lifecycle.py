"""The life of a server: it ends in order under load, takes new keys while it runs, speaks TLS, and
tells beforehand what is wrong."""

import json
import os
import signal
import ssl
import subprocess
import threading
import time

import httpx2
import pytest
import trustme

from conftest import BINARY, MODEL, Server, free_port

N_STREAMS = 32


def read_stream(server, i, ends):
    """Notes how a stream ended: with which last event, and whether it was whole."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Count from {i}."}],
        "stream": True,
        "max_tokens": 400 if i % 2 else 8,
        "ignore_eos": True,
    }
    last = None
    try:
        with httpx2.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    last = line.removeprefix("data: ")
    except httpx2.HTTPError as error:
        last = f"broken: {error!r}"
    ends[i] = last


def test_sigterm_under_streams_ends_every_stream_in_order():
    server = Server("--shutdown-timeout", "6", "--max-num-seqs", "32")
    ends = [None] * N_STREAMS
    threads = [threading.Thread(target=read_stream, args=(server, i, ends)) for i in range(N_STREAMS)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while server.metric("understudy_queue_seconds_count") < N_STREAMS:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    told = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    # New connections are answered as long as streams run.
    refused = None
    while refused is None:
        answer = httpx2.get(f"{server.url}/health/ready", timeout=10)
        if answer.status_code == 503:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
            refused = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=10)
    assert refused.status_code == 503, refused.text
    assert refused.json()["error"]["code"] == "server_shutting_down"
    assert int(refused.headers["retry-after"]) >= 1
    for thread in threads:
        thread.join(60)
    code = server.process.wait(timeout=30)
    took = time.monotonic() - told
    finished = sum(end == "[DONE]" for end in ends)
    told_why = 0
    for end in ends:
        assert end is not None
        if end != "[DONE]":
            assert json.loads(end)["error"]["code"] == "server_shutting_down", end
            told_why += 1
    assert finished + told_why == N_STREAMS
    assert finished >= N_STREAMS // 2, "short answers were finished"
    assert code == 0
    # The time of the flag, that of closing connections, and a slow machine.
    assert took < 6 + 5 + 10, took
    print(f"{finished} finished, {told_why} were told why, in {took:.1f} s")


KEYS = """
[[key]]
name = "{name}"
key = "{key}"
requests_per_minute = 5
"""


def status(server, key):
    headers = {"authorization": f"Bearer {key}"}
    return httpx2.get(f"{server.url}/v1/models", headers=headers).status_code


def wait_for(ready):
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_keys_are_read_anew_when_the_file_changes_and_on_sighup(tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS.format(name="one", key="sk-one"))
    server = Server("--api-keys", str(keys))
    try:
        assert status(server, "sk-one") == 200
        fresh = tmp_path / "fresh"
        fresh.write_text(KEYS.format(name="two", key="sk-two"))
        fresh.rename(keys)
        wait_for(lambda: status(server, "sk-two") == 200)
        assert status(server, "sk-one") == 401
        # A file that makes no sense changes nothing.
        keys.write_text("[[key]]\nnome = 'x'")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert server.process.poll() is None
        assert status(server, "sk-two") == 200
    finally:
        server.stop()


def test_sighup_while_the_model_is_loaded_is_kept(tmp_path):
    server = Server("--adapter-dir", str(tmp_path), wait=False)
    try:
        wait_for(server.listens)
        server.process.send_signal(signal.SIGHUP)
        server.wait_until_ready()
        wait_for(lambda: server.metric('understudy_reloads_total{what="adapters",result="ok"}') == 1)
    finally:
        server.stop()


QUOTA = """
[[key]]
name = "daily"
key = "sk-daily"
tokens_per_day = 100000
"""


def test_quotas_survive_a_killed_process(tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(QUOTA)
    flags = ["--api-keys", str(keys), "--store-dir", str(tmp_path / "store")]
    headers = {"authorization": "Bearer sk-daily"}

    def left(server):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "ignore_eos": True}
        answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        return int(answer.headers["x-ratelimit-remaining-tokens-day"])

    lefts = []
    for _ in range(3):
        server = Server(*flags)
        try:
            lefts.append(left(server))
            time.sleep(1.5)
        finally:
            server.process.kill()
            server.process.wait(timeout=20)
    used = 100000 - lefts[0]
    assert used > 10
    if time.gmtime().tm_hour or time.gmtime().tm_min > 2:  # A day that ends between them begins anew.
        assert lefts == [100000 - used * n for n in (1, 2, 3)]


def test_tls_with_a_certificate_that_is_exchanged(tmp_path):
    authority = trustme.CA()

    def certificate():
        made = authority.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(tmp_path / "key.pem")
        chain = b"".join(part.bytes() for part in made.cert_chain_pems)
        (tmp_path / "cert.pem").write_bytes(chain)
        return made.cert_chain_pems[0].bytes()

    def served():
        return ssl.get_server_certificate(("127.0.0.1", port)).encode().strip()

    first = certificate()
    port = free_port()
    flags = ["--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem", "--port", str(port)]
    process = subprocess.Popen([BINARY, "serve", *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    healthy = [BINARY, "healthcheck", "--tls", "--port", str(port)]
    try:
        wait_for(lambda: subprocess.run(healthy, capture_output=True).returncode == 0)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        url = f"https://localhost:{port}/v1/chat/completions"
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        answer = httpx2.post(url, json=body, verify=context, timeout=60)
        assert answer.status_code == 200, answer.text
        assert served() == first.strip()
        second = certificate()
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: served() == second.strip())
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def run(*words, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UNDERSTUDY_")}
    return subprocess.run([BINARY, *words], env=environment | variables, capture_output=True, text=True)


def test_settings_come_from_flags_then_variables_then_the_file(tmp_path):
    file = tmp_path / "understudy.toml"
    file.write_text("port = 1000\nblock-size = 32\nmax-num-seqs = 5\nno-fairness = true\n")
    done = run(
        *["config", "--explain", "--config", str(file), "--port", "3000"],
        UNDERSTUDY_HTTP_PORT="2000",
        UNDERSTUDY_BLOCK_SIZE="64",
        UNDERSTUDY_API_KEY="sk-secret",
        # What Kubernetes gives to pods beside a service of this name.
        UNDERSTUDY_PORT="tcp://10.0.0.1:8000",
    )
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    for name, value, origin in [
        ("port", "3000", "flag"),
        ("block-size", "64", "variable UNDERSTUDY_BLOCK_SIZE"),
        ("max-num-seqs", "5", f"file {file}"),
        ("no-fairness", "true", f"file {file}"),
        ("host", "127.0.0.1", "default"),
        ("api-key", "(not shown)", "variable UNDERSTUDY_API_KEY"),
    ]:
        assert value in rows[name] and rows[name].endswith(origin), rows[name]
    assert "sk-secret" not in done.stdout
    wrong = run("serve", "--config", str(file), UNDERSTUDY_BLOCK_SIZE="many")
    assert wrong.returncode != 0 and "many" in wrong.stderr
    assert "UNDERSTUDY_BLOCK_SIZE" in wrong.stderr
    missing = run("serve", "--config", "/no/such/file")
    assert missing.returncode != 0 and "--config /no/such/file" in missing.stderr
    assert "Usage" not in missing.stderr
    mistyped = run("serve", "/no/model", UNDERSTUDY_MAX_SEQS="4")
    assert "UNDERSTUDY_MAX_SEQS" in mistyped.stderr


def test_the_log_tells_of_failed_streams_and_of_refused_admin_requests(tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS.format(name="one", key="sk-one"))
    server = Server("--api-keys", str(keys), "--log-format", "json")
    headers = {"authorization": "Bearer sk-one"}
    try:
        assert httpx2.get(f"{server.url}/admin/state", headers=headers).status_code == 403
        assert httpx2.get(f"{server.url}/admin/state").status_code == 401
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True,
                "max_tokens": 4000, "ignore_eos": True}
        late = headers | {"x-request-timeout-ms": "200"}
        answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, headers=late, timeout=60)
        assert answer.status_code == 200 and "deadline_exceeded" in answer.text
    finally:
        server.stop()
    server.log.seek(0)
    told = [json.loads(line) for line in server.log.read().decode().splitlines() if line.startswith("{")]
    audited = [line["fields"] for line in told if line["target"] == "understudy::audit"]
    assert [(line["key"], line["status"]) for line in audited] == [("one", 403), ("", 401)], audited
    ended = [line["fields"] for line in told if line["fields"].get("message") == "ended"]
    assert [line["key"] for line in ended] == ["one", "", "one"], ended
    assert (ended[-1]["outcome"], ended[-1]["code"]) == ("failed", "deadline_exceeded")


@pytest.mark.parametrize("flags, word", [(["--max-num-seqs", "0"], "--max-num-seqs"), (["/no/model"], "/no/model")])
def test_doctor_says_what_to_change(flags, word):
    sick = run("doctor", "--port", "0", *flags)
    assert sick.returncode == 1
    assert any(line.startswith("FAIL") and word in line for line in sick.stdout.splitlines()), sick.stdout


def test_doctor_knows_a_model_that_fits():
    well = run("doctor", "--port", "0", run("fetch").stdout.split()[-1])
    assert well.returncode == 0, well.stdout + well.stderr
    assert "blocks of" in well.stdout
