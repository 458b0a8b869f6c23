// One element past a static tile: a guard lies behind it, not the next variable.
extern "C" __global__ void shared_off_by_one(const float* in, float* out) {
    __shared__ float tile[64];
    __shared__ float other[64];
    tile[threadIdx.x + 1] = in[threadIdx.x];  // BUG
    other[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = tile[63 - threadIdx.x] + other[63 - threadIdx.x];
}
