// Rows of 6 floats read as vectors of 4.
extern "C" __global__ void misaligned_vector(const float* in, float* out) {
    float4 v = *reinterpret_cast<const float4*>(in + 6 * threadIdx.x);  // BUG
    out[threadIdx.x] = v.x + v.w;
}
