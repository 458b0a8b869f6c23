// The launch gives one element less than the kernel uses.
extern "C" __global__ void dynamic_off_by_one(const float* in, float* out) {
    extern __shared__ float row[];
    row[threadIdx.x] = in[threadIdx.x];  // BUG
    __syncthreads();
    out[threadIdx.x] = row[threadIdx.x ^ 1];
}
