// One warp of the group describes another operand than the rest.
#include "hopper.cuh"
extern "C" __global__ void group_other_operand(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[32];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 32) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    product(d, describe(a, 64), describe(threadIdx.x / 32 == 1 ? b + 16 : b, 8));  // BUG
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
