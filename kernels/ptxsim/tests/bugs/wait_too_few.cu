// Double buffering that waits for the group before the last one but one.
#include "copy.cuh"
extern "C" __global__ void wait_too_few(const float4* in, float* out, int tiles) {
    __shared__ float4 stage[2][32];
    copy_async(&stage[0][threadIdx.x], &in[threadIdx.x]);
    commit();
    float sum = 0.0f;
    for (int i = 0; i < tiles; i++) {
        if (i + 1 < tiles)
            copy_async(&stage[(i + 1) & 1][threadIdx.x], &in[(i + 1) * 32 + threadIdx.x]);
        commit();
        wait<2>();
        __syncwarp();
        sum += stage[i & 1][31 - threadIdx.x].x;  // BUG
        __syncwarp();
    }
    out[threadIdx.x] = sum;
}
