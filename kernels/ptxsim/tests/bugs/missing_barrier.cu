// Values are exchanged through shared memory without waiting for the other warps.
extern "C" __global__ void missing_barrier(const float* in, float* out) {
    __shared__ float tile[128];
    tile[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = tile[127 - threadIdx.x];  // BUG
}
