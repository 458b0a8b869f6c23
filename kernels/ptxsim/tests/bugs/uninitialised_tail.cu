// The last tile is not full, and its tail is read all the same.
extern "C" __global__ void uninitialised_tail(const float* in, float* out, int n) {
    __shared__ float tile[32];
    if (threadIdx.x < n)
        tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = tile[31 - threadIdx.x];  // BUG
}
