// The barrier is not told of the bytes that come, so its phase ends without them.
#include "hopper.cuh"
extern "C" __global__ void bulk_no_expect(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        bulk_copy(tile, in, sizeof tile, full);
        arrive(full);
    }
    wait(full, 0);
    out[threadIdx.x] = tile[63 - threadIdx.x];  // BUG
}
