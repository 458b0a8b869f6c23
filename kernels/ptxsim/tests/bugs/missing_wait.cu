// An asynchronous copy is committed but never waited for.
#include "copy.cuh"
extern "C" __global__ void missing_wait(const float4* in, float4* out) {
    __shared__ float4 tile[64];
    copy_async(&tile[threadIdx.x], &in[threadIdx.x]);
    commit();
    __syncthreads();
    out[threadIdx.x] = tile[63 - threadIdx.x];  // BUG
}
