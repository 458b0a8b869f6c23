// Types, and the limits that launches and kernels agree on.
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void

using bf16 = __nv_bfloat16;
using bf162 = __nv_bfloat162;

constexpr unsigned ALL_LANES = 0xffffffffu;

DEVICE int lane_id() { return threadIdx.x & 31; }
DEVICE int warp_id() { return threadIdx.x >> 5; }
// Index of a thread among all of a one-dimensional grid, and how many there are.
DEVICE size_t thread_of_grid() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE size_t threads_of_grid() { return size_t(gridDim.x) * blockDim.x; }
DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Where part 0..3 (16 bytes) of a row of 64 bytes lies in it, if eight rows are not to meet in
// the banks of shared memory: the exchange that tensor cores of 9.0 know for rows of 64 bytes.
DEVICE int swizzled(int row, int part) { return part ^ (row / 2 % 4); }
