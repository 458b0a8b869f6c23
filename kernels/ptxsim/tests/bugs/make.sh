#!/usr/bin/env bash
# Rebuilds the PTX of the seeded bugs; needs nvcc on the PATH (see kernels/cuda/requirements.txt).
set -euo pipefail
cd "$(dirname "$0")"
for source in *.cu; do
    nvcc -arch=sm_80 -lineinfo -ptx "$source" -o - |
        sed -E 's#(\.file\s+[0-9]+) ".*/#\1 "#' >"${source%.cu}.ptx"
done
