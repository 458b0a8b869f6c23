// Rows with exchanged parts that begin within a pattern of eight rows.
#include "hopper.cuh"
extern "C" __global__ void group_descriptor(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[64 * 4 + 16], b[8 * 4];
    for (int i = threadIdx.x; i < 64 * 4 + 16; i += 128) a[i] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 32) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    product(d, describe_64(a + 16), describe_64(b));  // BUG
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
