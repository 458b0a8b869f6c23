#!/usr/bin/env bash
# Whether `understudy bench` agrees with an independent load generator (guidellm): the same server,
# prompts of the same lengths, the same arrivals. See docs/benchmarks.md.
#   benches/agree.sh [--requests N] [--rounds N] ...
set -euo pipefail
cd "$(dirname "$0")/.."
venv=target/agree/venv
if [ ! -x "$venv/bin/guidellm" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet guidellm==0.8.1
fi
test -x target/release/understudy || cargo build --release --bin understudy
exec "$venv/bin/python" benches/agree.py "$@"
