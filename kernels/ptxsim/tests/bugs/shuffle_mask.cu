// The mask names all lanes, but only the first half gets here.
extern "C" __global__ void shuffle_mask(const float* in, float* out, int n) {
    float v = in[threadIdx.x];
    if (threadIdx.x < n)
        v += __shfl_xor_sync(0xffffffffu, v, 8);  // BUG
    out[threadIdx.x] = v;
}
