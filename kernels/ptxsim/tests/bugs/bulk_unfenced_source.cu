// Copies from global memory what the block has just written there, without a fence.
#include "hopper.cuh"
extern "C" __global__ void bulk_unfenced_source(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) {
        init(full, 1);
        fence_async();
    }
    out[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expect(full, sizeof tile);
        bulk_copy(tile, out, sizeof tile, full);  // BUG
    }
    wait(full, 0);
    out[threadIdx.x] = tile[63 - threadIdx.x];
}
