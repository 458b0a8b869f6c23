// One warp waits for the copy, and another one that reads its bytes does not.
#include "hopper.cuh"
extern "C" __global__ void bulk_read_unwaited(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 32) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x >= 32) {
        if (threadIdx.x == 32) {
            arrive_expect(full, sizeof tile);
            bulk_copy(tile, in, sizeof tile, full);
        }
        __syncwarp();
        wait(full, 0);
    }
    out[threadIdx.x] = tile[63 - threadIdx.x];  // BUG
}
