"""The load generator beside guidellm on one server. Started by agree.sh.

A server that only waits is asked by both in turns. A model is asked by both at the same time, each with the same
load: one and the same machine may be half as fast a minute later, which no taking of turns makes up for.
"""

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/agree"
WORDS = "air apple back ball bank bear bird blue boat body book box bread car city class cold door".split()
FIGURES = ["ttft_ms", "itl_ms", "tokens_per_s"]


def serve(binary):
    """A server of the demo model on a free port, and its base URL. It computes with half of the processors, so that
    what a load generator itself takes does not slow it down."""
    n_threads = max(1, (os.cpu_count() or 2) // 2)
    command = [str(binary), "serve", "--port", "0", "--max-num-seqs", "32", "--threads", str(n_threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "error"})
    for line in process.stdout:
        if line.split()[:1] == ["URL"]:
            return process, line.split()[1].removesuffix("/v1")
    raise SystemExit("the server did not start")


def mock():
    """guidellm's server without a model, which waits 150 ms before the first token and 20 before each other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(Path(sys.executable).parent / "guidellm"), "mock-server", "--port", str(port), "--model", "mock"]
    command += ["--ttft-ms", "150", "--itl-ms", "20", "--ttft-ms-std", "0", "--itl-ms-std", "0"]
    command += ["--output-tokens", "64", "--output-tokens-std", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
            return process, url
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the mock server did not start")


def prompts(path, rng, n_requests, args):
    """Prompts that nobody has sent before, a line each, and how long their answers are to be."""
    with open(path, "w") as out:
        for _ in range(n_requests):
            text = " ".join(rng.choice(WORDS) for _ in range(args.words))
            out.write(json.dumps({"prompt": text, "output_tokens_count": rng.randint(*args.output_tokens)}) + "\n")


# How the same load is asked for, of which server.
LOADS = {
    "mock server, four clients": ("mock", "kind=concurrent,streams=4", ["--concurrency", "4"]),
    "mock server, constant rate": ("mock", "kind=constant,rate=4", ["--gaps", "constant", "--rate", "4"]),
    "model, one client each": ("model", "kind=concurrent,streams=1", ["--concurrency", "1"]),
    "model, four clients each": ("model", "kind=concurrent,streams=4", ["--concurrency", "4"]),
}


class Guidellm:
    """A run of guidellm, begun at once."""

    def __init__(self, url, model, load, n_requests, args, turn):
        self.n_requests, self.args = n_requests, args
        self.data, self.out = WORK / f"prompts-{turn}.jsonl", WORK / f"guidellm-{turn}.json"
        prompts(self.data, random.Random(f"{load} {turn}"), n_requests, args)
        command = [str(Path(sys.executable).parent / "guidellm"), "run", "--disable-console"]
        command += ["--backend", f"kind=openai_http,target={url},model={model},request_format=/v1/completions"]
        command += ["--profile", LOADS[load][1], "--constraint", f"kind=max_requests,count={n_requests}"]
        command += ["--data", f"kind=json_file,path={self.data}", "--output", f"kind=json,path={self.out}"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)

    def figures(self, window=None):
        """Its figures, of the requests within a window of time only if there is one; and the length of its prompts."""
        if self.process.wait():
            raise SystemExit(f"guidellm ended with {self.process.returncode}")
        done = json.loads(self.out.read_text())["benchmarks"][0]
        # Every request, not the summaries: what a percentile or a rate is differs between tools.
        requests = done["requests"]["successful"]
        if len(requests) != self.n_requests:
            raise SystemExit(f"guidellm finished {len(requests)} of {self.n_requests} requests")
        if window:
            if max(request["request_end_time"] for request in requests) < window[1]:
                raise SystemExit("guidellm had ended before the run beside it: their loads were not the same")
            requests = [r for r in requests if window[0] <= r["request_start_time"] and r["request_end_time"] <= window[1]]
        shortest, longest = self.args.output_tokens
        if not all(shortest <= request["output_tokens"] <= longest for request in requests):
            raise SystemExit("guidellm counts other tokens than it asked for")
        begin = min(request["request_start_time"] for request in requests)
        end = max(request["request_end_time"] for request in requests)
        figures = {
            "ttft_ms": statistics.mean(request["time_to_first_token_ms"] for request in requests),
            "itl_ms": statistics.mean(request["inter_token_latency_ms"] for request in requests),
            "tokens_per_s": sum(request["output_tokens"] for request in requests) / (end - begin),
        }
        return figures, round(statistics.mean(request["prompt_tokens"] for request in requests))


def own(url, n_prompt, load, args, turn):
    """The same figures of `understudy bench`, the length of its prompts, and when it sent them."""
    seed = 1000 * list(LOADS).index(load) + turn
    out = WORK / f"bench-{turn}.json"
    command = [str(args.binary), "bench", "--base-url", url, "--endpoint", "completions", "--prompt-as", "text"]
    command += LOADS[load][2] + ["--requests", str(args.requests), "--seed", str(seed)]
    command += ["--prompt-tokens", str(n_prompt), "--output-tokens", "{}..{}".format(*args.output_tokens)]
    command += ["--no-progress", "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    ended = time.time()
    told = json.loads(out.read_text())["loads"][0]
    if told["n_failed"]:
        raise SystemExit(f"failed: {told['errors']}")
    figures = {"ttft_ms": told["ttft_ms"]["mean"], "itl_ms": told["tpot_ms"]["mean"]}
    figures["tokens_per_s"] = told["output_tokens_per_s"]
    return figures, told["prompt_tokens"]["mean"], (ended - told["seconds"], ended)


def is_busy(url):
    """Whether the server computes something."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return any(line.startswith("understudy_sequences_running") and float(line.split()[-1]) > 0 for line in lines)


def in_turns(url, model, load, args, turn, n_prompt):
    """One after the other; who goes first changes."""
    if turn % 2:
        ours, n_own, _ = own(url, n_prompt, load, args, turn)
        theirs, n_theirs = Guidellm(url, model, load, args.requests, args, turn).figures()
    else:
        theirs, n_theirs = Guidellm(url, model, load, args.requests, args, turn).figures()
        ours, n_own, _ = own(url, n_theirs, load, args, turn)
    return theirs, n_theirs, ours, n_own


def together(url, model, load, args, turn, n_prompt):
    """Both at the same time: guidellm begins first and ends last, and what it measured meanwhile counts."""
    other = Guidellm(url, model, load, args.requests * 4 // 3 + 24, args, turn)
    while not is_busy(url):
        if other.process.poll() is not None:
            raise SystemExit("guidellm ended at once")
        time.sleep(0.1)
    ours, n_own, window = own(url, n_prompt, load, args, turn)
    theirs, n_theirs = other.figures(window)
    return theirs, n_theirs, ours, n_own


def compare(url, model, load, args):
    """Runs of both tools; the first round, a short one, warms up and does not count."""
    found = {"guidellm": [], "understudy bench": []}
    is_mock = LOADS[load][0] == "mock"
    # A first token waits for whatever step it meets: only many short requests have a mean. Answers of different
    # lengths keep clients that wait for each other from falling into step.
    args.output_tokens = [64, 64] if is_mock else [16, 48]
    n_requests = args.mock_requests if is_mock else args.model_requests
    run = in_turns if is_mock else together
    n_prompt = args.words
    for turn in range(args.rounds + 1):
        args.requests = n_requests if turn else min(n_requests, 16)
        theirs, n_prompt, ours, n_own = run(url, model, load, args, turn, n_prompt)
        print(f"{load}, round {turn}: prompts of {n_prompt} and {n_own:.1f} tokens", theirs, ours, flush=True)
        if turn:
            found["guidellm"].append(theirs)
            found["understudy bench"].append(ours)
    return found


def commit():
    """What is checked out."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip() or "unknown"


def pressure():
    """Share of the last five minutes in which something waited for a processor, in percent."""
    try:
        return float(Path("/proc/pressure/cpu").read_text().split("avg300=")[1].split()[0])
    except OSError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/understudy")
    parser.add_argument("--loads", type=lambda text: text.split("/"), default=list(LOADS), help="with slashes between them")
    parser.add_argument("--mock-requests", type=int, default=16, help="of each tool and round")
    parser.add_argument("--model-requests", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--words", type=int, default=80)
    parser.add_argument("--bound", type=float, default=5, help="percent by which they may differ")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind, start in {"mock": mock, "model": lambda: serve(args.binary)}.items():
        process, url = start()
        try:
            with urllib.request.urlopen(f"{url}/v1/models") as answer:
                model = json.load(answer)["data"][0]["id"]
            for load in (load for load in args.loads if LOADS[load][0] == kind):
                for tool, figures in compare(url, model, load, args).items():
                    merged = found.setdefault(tool, [{} for _ in figures])
                    for into, run in zip(merged, figures):
                        into |= {f"{load}: {key}": value for key, value in run.items()}
        finally:
            process.terminate()
            process.wait()
    keys = [f"{load}: {key}" for load in args.loads for key in FIGURES]
    means = {tool: {key: statistics.mean(run[key] for run in runs) for key in keys} for tool, runs in found.items()}
    off = {key: 100 * (means["understudy bench"][key] / means["guidellm"][key] - 1) for key in keys}
    for key in keys:
        values = ", ".join(f"{tool} {figures[key]:.1f}" for tool, figures in means.items())
        print(f"{key:<42} {values}: {off[key]:+.1f}%")
    agrees = all(abs(value) <= args.bound for value in off.values())
    if args.results:
        args.results.mkdir(parents=True, exist_ok=True)
        about = {"unix_seconds": int(time.time()), "commit": commit(), "pressure_percent": pressure()}
        about |= {"mock_requests": args.mock_requests, "model_requests": args.model_requests, "rounds": args.rounds, "agrees": agrees}
        about |= {"means": means, "off_percent": off, "bound_percent": args.bound, "runs": found}
        (args.results / "agree.json").write_text(json.dumps(about, indent=2) + "\n")
    print("they agree" if agrees else f"they differ by more than {args.bound}%")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
