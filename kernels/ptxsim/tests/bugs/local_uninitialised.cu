// A list in local memory, of which more is read than was written.
extern "C" __global__ void local_uninitialised(const int* in, float* out, int n) {
    float list[8];
    for (int i = 0; i < n; i++) list[in[i]] = 1.0f;
    out[threadIdx.x] = list[in[n]];  // BUG
}
