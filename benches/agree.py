"""The load generator beside guidellm, in turns on one server. Started by agree.sh."""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target/agree"
WORDS = "air apple back ball bank bear bird blue boat body book box bread car city class cold door".split()
FIGURES = ["ttft_ms", "itl_ms", "tokens_per_s"]


def serve(binary):
    """A server of the demo model on a free port, and its base URL. guidellm sends an option of vLLM that is not in the
    API, which is refused by default."""
    command = [str(binary), "serve", "--port", "0", "--max-num-seqs", "32", "--unknown-params", "warn"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "error"})
    for line in process.stdout:
        if line.split()[:1] == ["URL"]:
            return process, line.split()[1].removesuffix("/v1")
    raise SystemExit("the server did not start")


def prompts(path, rng, args):
    """Prompts that nobody has sent before, a line each."""
    with open(path, "w") as out:
        for _ in range(args.requests):
            text = " ".join(rng.choice(WORDS) for _ in range(args.words))
            out.write(json.dumps({"prompt": text, "output_tokens_count": args.output_tokens}) + "\n")


def guidellm(url, model, args, turn):
    """Figures of guidellm, and how many tokens its prompts had."""
    data, out = WORK / f"prompts-{turn}.jsonl", WORK / f"guidellm-{turn}.json"
    prompts(data, random.Random(turn), args)
    command = [str(Path(sys.executable).parent / "guidellm"), "run", "--disable-console"]
    command += ["--backend", f"kind=openai_http,target={url},model={model},request_format=/v1/completions"]
    command += ["--profile", f"kind=concurrent,streams={args.clients}"]
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


def own(binary, url, n_prompt, args, turn):
    """The same figures of `understudy bench`."""
    out = WORK / f"bench-{turn}.json"
    command = [str(binary), "bench", "--base-url", url, "--endpoint", "completions", "--prompt-as", "text"]
    command += ["--concurrency", str(args.clients), "--requests", str(args.requests), "--seed", str(turn)]
    command += ["--prompt-tokens", str(n_prompt), "--output-tokens", str(args.output_tokens)]
    command += ["--no-progress", "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    load = json.loads(out.read_text())["loads"][0]
    if load["n_failed"]:
        raise SystemExit(f"failed: {load['errors']}")
    figures = {"ttft_ms": load["ttft_ms"]["mean"], "itl_ms": load["tpot_ms"]["mean"]}
    return {**figures, "tokens_per_s": load["output_tokens_per_s"]}, load["prompt_tokens"]["mean"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/understudy")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=160)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--bound", type=float, default=5, help="percent by which they may differ")
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    process, url = serve(args.binary)
    found = {"guidellm": [], "understudy bench": []}
    try:
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            model = json.load(answer)["data"][0]["id"]
        # The first round warms all three up.
        for turn in range(args.rounds + 1):
            # Who goes first changes, for the machine may be busier now than later.
            if turn % 2 == 0:
                theirs, n_prompt = guidellm(url, model, args, turn)
                ours, n_own = own(args.binary, url, n_prompt, args, turn)
            else:
                ours, n_own = own(args.binary, url, n_prompt, args, turn)
                theirs, n_prompt = guidellm(url, model, args, turn)
            print(f"round {turn}: prompts of {n_prompt} and {n_own:.1f} tokens", theirs, ours, flush=True)
            if turn:
                found["guidellm"].append(theirs)
                found["understudy bench"].append(ours)
    finally:
        process.terminate()
        process.wait()
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in FIGURES} for name, runs in found.items()}
    off = {key: 100 * (medians["understudy bench"][key] / medians["guidellm"][key] - 1) for key in FIGURES}
    for key in FIGURES:
        values = ", ".join(f"{name} {figures[key]:.1f}" for name, figures in medians.items())
        print(f"{key:<14} {values}: {off[key]:+.1f}%")
    agrees = all(abs(value) <= args.bound for value in off.values())
    if args.results:
        args.results.mkdir(parents=True, exist_ok=True)
        about = {"clients": args.clients, "requests": args.requests, "rounds": args.rounds, "agrees": agrees}
        about |= {"medians": medians, "off_percent": off, "bound_percent": args.bound, "runs": found}
        (args.results / "agree.json").write_text(json.dumps(about, indent=2) + "\n")
    print("they agree" if agrees else f"they differ by more than {args.bound}%")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
