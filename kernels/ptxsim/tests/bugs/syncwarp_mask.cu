// Half a warp waits for the whole.
extern "C" __global__ void syncwarp_mask(const float* in, float* out, int n) {
    float value = in[threadIdx.x];
    if (threadIdx.x < n) {
        __syncwarp();  // BUG
        value += in[0];
    }
    out[threadIdx.x] = value;
}
