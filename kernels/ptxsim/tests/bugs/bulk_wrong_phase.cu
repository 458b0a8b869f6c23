// Waits for the phase before the first, which is always over.
#include "hopper.cuh"
extern "C" __global__ void bulk_wrong_phase(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expect(full, sizeof tile);
        bulk_copy(tile, in, sizeof tile, full);
    }
    wait(full, 1);
    out[threadIdx.x] = tile[63 - threadIdx.x];  // BUG
}
