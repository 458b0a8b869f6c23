// Announces more bytes than come.
#include "hopper.cuh"
extern "C" __global__ void bulk_wrong_bytes(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expect(full, sizeof tile + 16);
        bulk_copy(tile, in, sizeof tile, full);
    }
    wait(full, 0);  // BUG
    out[threadIdx.x] = tile[63 - threadIdx.x];
}
