"""What is asked of a server, and what is timed. Counts of tokens come from its own usage."""

import http.client
import json
import random
import threading
import time

PROMPT_IDS = range(1_000, 21_000)


def prompt(rng, n_tokens):
    """Ids that any vocabulary has; new ones each time, so that no cache helps."""
    return [rng.choice(PROMPT_IDS) for _ in range(n_tokens)]


def stream(port, tokens, max_tokens):
    """Times of a request's events, from its sending on, checked against its usage."""
    body = {
        "model": "m",
        "prompt": tokens,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        # Of llama.cpp: no reuse of the last prompt's beginning.
        "cache_prompt": False,
    }
    if port.is_understudy:
        del body["cache_prompt"]
    connection = http.client.HTTPConnection("127.0.0.1", port.number, timeout=600)
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {answer.read()[:300]}")
    times, usage = [], None
    for line in answer:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        now = time.perf_counter() - began
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(str(event)[:300])
        usage = event.get("usage") or usage
        if event.get("choices"):
            times.append(now)
    connection.close()
    if usage is None or usage["prompt_tokens"] != len(tokens) or usage["completion_tokens"] != max_tokens:
        raise RuntimeError(f"asked for {len(tokens)} + {max_tokens} tokens, usage says {usage}")
    return times


class Port:
    def __init__(self, server):
        self.number = server.port
        self.is_understudy = server.name == "understudy"


def prefill(server, rng, n_tokens):
    """Tokens a second of a prompt."""
    times = stream(Port(server), prompt(rng, n_tokens), 1)
    return {"tokens_per_s": n_tokens / times[0]}


def decode(server, rng, n_tokens=64):
    """Tokens a second of one stream, after its first token."""
    times = stream(Port(server), prompt(rng, 16), n_tokens)
    return {"tokens_per_s": (n_tokens - 1) / (times[-1] - times[0])}


def streams(server, rng, n_streams, n_in, n_out):
    """Many streams at once: tokens a second of all, and how long the slowest waited."""
    results, errors = [], []

    def one(tokens):
        try:
            results.append(stream(Port(server), tokens, n_out))
        except (RuntimeError, OSError) as error:
            errors.append(error)

    prompts = [prompt(rng, n_in) for _ in range(n_streams)]
    threads = [threading.Thread(target=one, args=(tokens,)) for tokens in prompts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if errors:
        raise RuntimeError(f"{len(errors)} of {n_streams} failed: {errors[0]}")
    gaps = [b - a for times in results for a, b in zip(times, times[1:])]
    return {
        "tokens_per_s": n_streams * n_out / seconds,
        "ttft_p99_s": quantile([times[0] for times in results], 0.99),
        "gap_p99_s": quantile(gaps, 0.99),
    }


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
