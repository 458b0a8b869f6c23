"""llama.cpp's server inside Python: `python llama_in_process.py MODEL PORT THREADS SLOTS`."""

import signal
import sys

import xllamacpp

model, port, threads, slots = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {"m"}
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
# The context is divided by the slots.
params.n_ctx = 3072 * slots
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.ui = False
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
