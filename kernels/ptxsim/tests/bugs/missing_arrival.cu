// A barrier for two arrivals that only one thread arrives at.
#include "hopper.cuh"
extern "C" __global__ void missing_arrival(const float* in, float* out) {
    __shared__ float tile[64];
    __shared__ Barrier full;
    if (threadIdx.x == 0) init(full, 2);
    __syncthreads();
    tile[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    if (threadIdx.x == 0) arrive(full);
    wait(full, 0);  // BUG
    out[threadIdx.x] = tile[63 - threadIdx.x];
}
