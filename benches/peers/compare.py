"""Understudy beside other servers: the same weights, threads and requests, in turns.

    python3 benches/peers/compare.py [--peer llama.cpp|vllm] [--models demo:q4_1,...]
        [--scenarios prefill512,...] [--results DIR]

See README.md.
"""

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import time
from pathlib import Path

import load
import servers
import shapes

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Scenario: what it runs, how often each server runs it, and how many slots llama.cpp gets.
SCENARIOS = {
    "prefill512": (lambda server, rng: load.prefill(server, rng, 512), 5, 1),
    "prefill2048": (lambda server, rng: load.prefill(server, rng, 2048), 5, 1),
    "decode": (load.decode, 5, 1),
    "streams32": (lambda server, rng: load.streams(server, rng, 32, 256, 128), 1, 32),
}
DEFAULT = {
    "llama.cpp": ["demo:q4_1", "qwen2.5-0.5b:q8_0", "qwen2.5-0.5b:q4_0", "llama-3.2-1b:q4_k", "qwen2.5-0.5b:bf16"],
    "vllm": ["smollm2-135m:hf", "qwen2.5-0.5b:hf", "llama-3.2-1b:hf"],
}
HIGHER_IS_BETTER = {"tokens_per_s"}


def model_file(spec, work, binary, demo):
    """The GGUF file of `shape:type`, or for type `hf` the folder in bf16, made once."""
    name, kind = spec.split(":")
    if name == "demo":
        return demo
    if kind == "hf":
        if not (work / f"{name}.hf/model.safetensors").exists():
            shapes.write_hf(name, demo, work / f"{name}.hf")
        return work / f"{name}.hf"
    base = work / f"{name}.bf16.gguf"
    if not base.exists():
        shapes.write(name, demo, base)
    if kind == "bf16":
        return base
    path = work / f"{name}.{kind}.gguf"
    if not path.exists():
        subprocess.run([str(binary), "quantize", "--type", kind, str(base), str(path)], check=True)
    return path


def pressure():
    """Share of the last ten seconds in which something waited for a processor, in percent."""
    try:
        text = Path("/proc/pressure/cpu").read_text()
    except OSError:
        return 0.0
    return float(text.split("avg10=")[1].split()[0])


def compare(spec, path, args, work):
    """Rows of one model: a dict a scenario."""
    rows = []
    fetch, start = {
        "llama.cpp": (servers.fetch_llama_cpp, servers.llama_cpp),
        "vllm": (servers.fetch_vllm, servers.vllm),
    }[args.peer]
    home = fetch(args.peers)
    groups = {}
    for scenario in args.scenarios:
        # vLLM takes minutes to start, and loses nothing by more slots.
        slots = 32 if args.peer == "vllm" else SCENARIOS[scenario][2]
        groups.setdefault(slots, []).append(scenario)
    for slots, scenarios in groups.items():
        with (
            servers.understudy(args.binary, path, args.threads, work, args.kv_memory) as ours,
            start(home, path, args.threads, work, slots) as peer,
        ):
            both = [ours, peer]
            for server in both:
                load.prefill(server, random.Random(0), 64)
                load.decode(server, random.Random(0), 8)
            for scenario in scenarios:
                row = measure(spec, scenario, both, args)
                if row is None:
                    print(f"{spec} {scenario}: left out, no prompts that both answer", flush=True)
                    continue
                rows.append(row)
                rows[-1]["resident_mb"] = {server.name: server.resident_mb() for server in both}
                rows[-1]["file_mb"] = file_mb(path)
                print_row(rows[-1])
    return rows


def file_mb(path):
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 2**20


def measure(spec, scenario, both, args):
    """A row of the table; None if a server did not answer."""
    run, n_runs, _ = SCENARIOS[scenario]
    n_runs = args.runs or n_runs
    found = {server.name: [] for server in both}
    for turn in range(n_runs):
        taken = take_turn(run, both, turn)
        if taken is None:
            return None
        for name, figures in taken.items():
            found[name].append(figures)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    ratios = {}
    for key in medians["understudy"]:
        ours, theirs = medians["understudy"][key], medians[both[1].name][key]
        ratios[key] = ours / theirs if key in HIGHER_IS_BETTER else theirs / ours
    return {"model": spec, "scenario": scenario, "medians": medians, "ratios": ratios, "runs": found}


def take_turn(run, both, turn):
    """Figures of each server. The same prompts for both, others each turn; who goes first changes. Random weights write
    text that a server may refuse as no answer: then both get other prompts, and in the end None."""
    for more in range(5):
        try:
            order = both if turn % 2 == 0 else both[::-1]
            return {server.name: run(server, random.Random(1000 * (more + 1) + turn)) for server in order}
        except RuntimeError as error:
            print(f"again with other prompts: {error}", flush=True)
    return None


def print_row(row):
    for key, ratio in row["ratios"].items():
        figures = ", ".join(f"{name} {values[key]:.3g}" for name, values in row["medians"].items())
        print(f"{row['model']:<22} {row['scenario']:<12} {key:<13} {figures}  -> {ratio:.2f}x", flush=True)


def commit():
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def markdown(rows, peer):
    lines = [f"| model | scenario | figure | understudy | {peer} | ratio |", "|---|---|---|--:|--:|--:|"]
    for row in rows:
        for key, ratio in row["ratios"].items():
            ours, theirs = (values[key] for values in row["medians"].values())
            lines.append(f"| {row['model']} | {row['scenario']} | {key} | {ours:.3g} | {theirs:.3g} | {ratio:.2f} |")
    lines += ["", f"| model | scenario | file, MB | understudy, resident MB | {peer}, resident MB |"]
    lines += ["|---|---|--:|--:|--:|"]
    for row in rows:
        ours, theirs = row["resident_mb"].values()
        lines.append(f"| {row['model']} | {row['scenario']} | {row['file_mb']:.0f} | {ours:.0f} | {theirs:.0f} |")
    return "\n".join(lines) + "\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/understudy")
    parser.add_argument("--peer", choices=list(DEFAULT), default="llama.cpp")
    parser.add_argument("--models", type=lambda text: text.split(","), help="SHAPE:TYPE; type hf: bf16 in safetensors")
    parser.add_argument("--scenarios", type=lambda text: text.split(","), default=list(SCENARIOS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--runs", type=int, help="of each scenario, instead of its own number")
    parser.add_argument("--minutes", type=float, default=15, help="no new model begins after this")
    parser.add_argument("--kv-memory", default="1GiB")
    parser.add_argument("--peers", type=Path, default=ROOT / "target/peers", help="where downloads and models go")
    parser.add_argument("--results", type=Path)
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    demo = Path(cache) / "understudy/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    parser.add_argument("--demo", type=Path, default=demo, help="the demo model, as understudy has cached it")
    return parser.parse_args()


def main():
    args = arguments()
    work = args.peers / "models"
    work.mkdir(parents=True, exist_ok=True)
    if not args.demo.exists():
        raise SystemExit(f"no {args.demo}: run `understudy serve` once, which fetches the demo model")
    began, before, rows, left = time.monotonic(), pressure(), [], []
    if before > 20:
        print(f"The machine is busy ({before:.0f}% of the time something waits): figures are rough.", flush=True)
    for spec in args.models or DEFAULT[args.peer]:
        if time.monotonic() - began > 60 * args.minutes:
            left.append(spec)
            continue
        rows += compare(spec, model_file(spec, work, args.binary, args.demo), args, work)
        if args.results:
            write(args, rows, before)
    if left:
        print(f"Not measured, for want of time: {', '.join(left)}")


def write(args, rows, pressure_before):
    """What there is so far."""
    args.results.mkdir(parents=True, exist_ok=True)
    measured = [row["model"] for row in rows]
    left = [spec for spec in args.models or DEFAULT[args.peer] if spec not in measured]
    about = {"machine": platform.processor() or platform.machine(), "threads": args.threads, "pressure": pressure_before}
    about |= {"unix_seconds": int(time.time()), "commit": commit()}
    versions = {"llama.cpp": servers.LLAMA_CPP, "vllm": servers.VLLM}
    about |= {"peer": versions[args.peer], "rows": rows, "not_measured": left}
    (args.results / f"peers-{args.peer}.json").write_text(json.dumps(about, indent=2) + "\n")
    (args.results / f"peers-{args.peer}.md").write_text(markdown(rows, args.peer))


if __name__ == "__main__":
    main()
