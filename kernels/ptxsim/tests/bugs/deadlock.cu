// A barrier that half of the warps never reach.
extern "C" __global__ void deadlock(float* out, int n) {
    if (threadIdx.x / 32 < n)
        __syncthreads();  // BUG
    out[threadIdx.x] = 1.0f;
}
