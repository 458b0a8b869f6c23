// The output has no room for the last element.
extern "C" __global__ void global_write_off_by_one(float* out) {
    out[blockIdx.x * blockDim.x + threadIdx.x + 1] = 1.0f;  // BUG
}
