"""The load generator beside guidellm, in turns on one server. Started by agree.sh."""

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


def mock(args):
    """guidellm's server without a model, which waits 150 ms before the first token and 20 before each other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(Path(sys.executable).parent / "guidellm"), "mock-server", "--port", str(port), "--model", "mock"]
    command += ["--ttft-ms", "150", "--itl-ms", "20", "--ttft-ms-std", "0", "--itl-ms-std", "0"]
    command += ["--output-tokens", str(args.output_tokens), "--output-tokens-std", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/v1/models", timeout=5).close()
            return process, url
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the mock server did not start")


def prompts(path, rng, args):
    """Prompts that nobody has sent before, a line each."""
    with open(path, "w") as out:
        for _ in range(args.requests):
            text = " ".join(rng.choice(WORDS) for _ in range(args.words))
            out.write(json.dumps({"prompt": text, "output_tokens_count": args.output_tokens}) + "\n")


# How the same load is asked for, of which server. Against a model, both loads are the same from run to run: the phases of
# several clients in a closed loop are not, and decide whether their prompts meet in one step. The mock server only waits,
# so what else runs on the machine hardly matters there.
LOADS = {
    "mock server, four clients": ("mock", "kind=concurrent,streams=4", ["--concurrency", "4"]),
    "one client": ("model", "kind=concurrent,streams=1", ["--concurrency", "1"]),
    "constant rate": ("model", "kind=constant,rate={rate}", ["--gaps", "constant", "--rate", "{rate}"]),
}


def guidellm(url, model, load, args, turn):
    """Figures of guidellm, and how many tokens its prompts had."""
    data, out = WORK / f"prompts-{turn}.jsonl", WORK / f"guidellm-{turn}.json"
    prompts(data, random.Random(f"{load} {turn}"), args)
    command = [str(Path(sys.executable).parent / "guidellm"), "run", "--disable-console"]
    command += ["--backend", f"kind=openai_http,target={url},model={model},request_format=/v1/completions"]
    command += ["--profile", LOADS[load][1].format(rate=args.rate)]
    command += ["--constraint", f"kind=max_requests,count={args.requests}"]
    command += ["--data", f"kind=json_file,path={data}", "--output", f"kind=json,path={out}"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    done = json.loads(out.read_text())["benchmarks"][0]
    # Every request, not the summaries: what a percentile or a rate is differs between tools.
    requests = done["requests"]["successful"]
    if len(requests) != args.requests:
        raise SystemExit(f"guidellm finished {len(requests)} of {args.requests} requests")
    counted = [request["output_tokens"] for request in requests]
    if set(counted) != {args.output_tokens}:
        raise SystemExit(f"guidellm counts answers of {sorted(set(counted))} tokens")
    begin = min(request["request_start_time"] for request in requests)
    end = max(request["request_end_time"] for request in requests)
    figures = {
        "ttft_ms": statistics.mean(request["time_to_first_token_ms"] for request in requests),
        "itl_ms": statistics.mean(request["inter_token_latency_ms"] for request in requests),
        "tokens_per_s": sum(counted) / (end - begin),
    }
    return figures, round(statistics.mean(request["prompt_tokens"] for request in requests))


def own(binary, url, n_prompt, load, args, turn):
    """The same figures of `understudy bench`."""
    seed = 1000 * list(LOADS).index(load) + turn
    out = WORK / f"bench-{turn}.json"
    command = [str(binary), "bench", "--base-url", url, "--endpoint", "completions", "--prompt-as", "text"]
    command += [word.format(rate=args.rate) for word in LOADS[load][2]]
    command += ["--requests", str(args.requests), "--seed", str(seed)]
    command += ["--prompt-tokens", str(n_prompt), "--output-tokens", str(args.output_tokens)]
    command += ["--no-progress", "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    told = json.loads(out.read_text())["loads"][0]
    if told["n_failed"]:
        raise SystemExit(f"failed: {told['errors']}")
    figures = {"ttft_ms": told["ttft_ms"]["mean"], "itl_ms": told["tpot_ms"]["mean"]}
    return {**figures, "tokens_per_s": told["output_tokens_per_s"]}, told["prompt_tokens"]["mean"]


def compare(url, model, load, args):
    """Runs of both tools, in turns; the first round warms up and does not count."""
    found = {"guidellm": [], "understudy bench": []}
    n_prompt = args.words
    for turn in range(args.rounds + 1):
        # Who goes first changes, for the machine may be busier now than later.
        if turn % 2 == 0:
            theirs, n_prompt = guidellm(url, model, load, args, turn)
            ours, n_own = own(args.binary, url, n_prompt, load, args, turn)
        else:
            ours, n_own = own(args.binary, url, n_prompt, load, args, turn)
            theirs, n_prompt = guidellm(url, model, load, args, turn)
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
    parser.add_argument("--rate", type=float, default=1, help="requests a second of the constant rate")
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=160)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--bound", type=float, default=5, help="percent by which they may differ")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    found = {}
    for kind, start in {"mock": lambda: mock(args), "model": lambda: serve(args.binary)}.items():
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
    medians = {tool: {key: statistics.median(run[key] for run in runs) for key in keys} for tool, runs in found.items()}
    off = {key: 100 * (medians["understudy bench"][key] / medians["guidellm"][key] - 1) for key in keys}
    for key in keys:
        values = ", ".join(f"{tool} {figures[key]:.1f}" for tool, figures in medians.items())
        print(f"{key:<42} {values}: {off[key]:+.1f}%")
    agrees = all(abs(value) <= args.bound for value in off.values())
    if args.results:
        args.results.mkdir(parents=True, exist_ok=True)
        about = {"unix_seconds": int(time.time()), "commit": commit(), "pressure_percent": pressure()}
        about |= {"rate": args.rate, "requests": args.requests, "rounds": args.rounds, "agrees": agrees}
        about |= {"medians": medians, "off_percent": off, "bound_percent": args.bound, "runs": found}
        (args.results / "agree.json").write_text(json.dumps(about, indent=2) + "\n")
    print("they agree" if agrees else f"they differ by more than {args.bound}%")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
