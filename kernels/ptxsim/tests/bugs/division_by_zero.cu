// More heads than values: the group size is zero.
extern "C" __global__ void division_by_zero(const int* heads, int* out, int values) {
    int group = values / heads[threadIdx.x];
    out[threadIdx.x] = threadIdx.x / group;  // BUG
}
