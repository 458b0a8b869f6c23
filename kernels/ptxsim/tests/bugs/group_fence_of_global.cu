// The fence is one of global memory, and the products read shared memory.
#include "hopper.cuh"
extern "C" __global__ void group_fence_of_global(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    asm volatile("fence.proxy.async.global;" ::: "memory");
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    product(d, describe(a, 64), describe(b, 8));  // BUG
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
