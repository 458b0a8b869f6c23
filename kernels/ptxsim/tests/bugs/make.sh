#!/usr/bin/env bash
# Rebuilds the PTX of the seeded bugs; needs nvcc on the PATH (see kernels/cuda/requirements.txt).
set -euo pipefail
cd "$(dirname "$0")"
for source in *.cu; do
    arch=sm_80
    if grep -q 'hopper.cuh' "$source"; then arch=sm_90a; fi
    nvcc -arch=$arch -lineinfo -ptx "$source" -o - |
        sed -E 's#(\.file\s+[0-9]+) ".*/#\1 "#' >"${source%.cu}.ptx"
done
