// The barrier's initialisation is not fenced for the copy that counts at it.
#include "hopper.cuh"
extern "C" __global__ void bulk_init_unfenced(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) init(full, 1);
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expect(full, sizeof tile);
        bulk_copy(tile, in, sizeof tile, full);  // BUG
    }
    wait(full, 0);
    out[threadIdx.x] = tile[63 - threadIdx.x];
}
