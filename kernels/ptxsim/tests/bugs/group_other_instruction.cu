// Two warps of the group multiply by one instruction, two by another: as many, but not together.
#include "hopper.cuh"
extern "C" __global__ void group_other_instruction(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    if (threadIdx.x < 64) {
        product(d, describe(a, 64), describe(b, 8));  // BUG
        out[threadIdx.x + 128] = in[4];
    } else {
        product(d, describe(a, 64), describe(b, 8));
    }
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
