// Adds to an output that nobody has set to zero.
extern "C" __global__ void uninitialised_global(const float* in, float* out) {
    out[threadIdx.x] += in[threadIdx.x];  // BUG
}
