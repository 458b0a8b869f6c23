// The block ends while its copy is in flight.
#include "hopper.cuh"
extern "C" __global__ void bulk_unfinished(const float* in, float* out) {
    __shared__ __align__(128) float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) {
        init(full, 1);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive_expect(full, sizeof tile);
        bulk_copy(tile, in, sizeof tile, full);  // BUG
    }
    out[threadIdx.x] = in[threadIdx.x];
}
