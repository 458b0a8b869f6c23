// The mask is right, but the lane read from is not in it.
extern "C" __global__ void shuffle_source(const float* in, float* out, int n) {
    float v = in[threadIdx.x];
    if (threadIdx.x < n)
        v += __shfl_sync(0x0000ffffu, v, 20);  // BUG
    out[threadIdx.x] = v;
}
