// Uses sums before the products are waited for.
#include "hopper.cuh"
extern "C" __global__ void group_missing_wait(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    product(d, describe(a, 64), describe(b, 8));
    group_commit();
    out[threadIdx.x] = d[0];  // BUG
    group_wait();
}
