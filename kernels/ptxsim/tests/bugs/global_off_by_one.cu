// `<=` where `<` is meant.
extern "C" __global__ void global_off_by_one(const float* in, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n)
        out[i] = in[i] * 2.0f;  // BUG
}
