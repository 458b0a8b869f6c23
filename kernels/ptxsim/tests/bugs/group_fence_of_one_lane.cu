// One lane of each warp fences, and what the others wrote is read by the products.
#include "hopper.cuh"
extern "C" __global__ void group_fence_of_one_lane(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    if (threadIdx.x % 32 == 0) fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    product(d, describe(a, 64), describe(b, 8));  // BUG
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
