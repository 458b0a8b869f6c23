// The second tile is asked for before all warps have read the first.
#include "hopper.cuh"
extern "C" __global__ void bulk_overwritten(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full, empty;
    if (threadIdx.x == 0) {
        init(full, 1);
        init(empty, 1);
        fence_async();
    }
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < 2; i++) {
        if (threadIdx.x == 32) {
            if (i > 0) wait(empty, 0);
            arrive_expect(full, sizeof tile);
            bulk_copy(tile, in + 64 * i, sizeof tile, full);  // BUG
        }
        __syncwarp();
        wait(full, i);
        if (threadIdx.x == 0) arrive(empty);
        sum += tile[63 - threadIdx.x];
    }
    out[threadIdx.x] = sum;
}
