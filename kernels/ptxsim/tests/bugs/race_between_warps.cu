// The next round overwrites sums that slower warps have not read yet.
extern "C" __global__ void race_between_warps(const float* in, float* out, int rounds) {
    __shared__ float sums[4];
    float total = 0.0f;
    for (int i = 0; i < rounds; i++) {
        if ((threadIdx.x & 31) == 0)
            sums[threadIdx.x / 32] = in[i * 4 + threadIdx.x / 32];
        __syncthreads();
        total += sums[0] + sums[1] + sums[2] + sums[3];  // BUG
    }
    out[threadIdx.x] = total;
}
