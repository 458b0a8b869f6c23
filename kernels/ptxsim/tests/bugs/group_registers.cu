// Sums are set between the fence of registers and the products.
#include "hopper.cuh"
extern "C" __global__ void group_registers(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    group_fence();
    float d[4] = {in[0], in[1], in[2], in[3]};
    product(d, describe(a, 64), describe(b, 8));  // BUG
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
