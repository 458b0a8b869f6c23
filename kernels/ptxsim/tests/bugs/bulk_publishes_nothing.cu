// A thread arrives before it writes: the copy that it asks for afterwards does not publish that.
#include "hopper.cuh"
extern "C" __global__ void bulk_publishes_nothing(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ float scale;
    __shared__ Barrier full;
    if (threadIdx.x == 32) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 32) {
        arrive_expect(full, sizeof tile);
        scale = in[0];
        bulk_copy(tile, in, sizeof tile, full);
    }
    __syncwarp();
    wait(full, 0);
    float sum = tile[63 - threadIdx.x];
    out[threadIdx.x] = sum * scale;  // BUG
}
