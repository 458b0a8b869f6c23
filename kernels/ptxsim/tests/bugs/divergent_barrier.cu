// A barrier that only half of a warp reaches.
extern "C" __global__ void divergent_barrier(float* out, int n) {
    if (threadIdx.x < n) {
        out[threadIdx.x] = 1.0f;
        __syncthreads();  // BUG
        out[threadIdx.x] += 1.0f;
    }
}
