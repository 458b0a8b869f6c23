// An index into a thread's own array that grows past its end.
extern "C" __global__ void local_index(const int* in, int* out, int n) {
    int best[8];
    for (int i = 0; i < 8; i++) best[i] = in[i];
    for (int i = 0; i < n; i++) best[in[i]] += i;  // BUG
    int sum = 0;
    for (int i = 0; i < 8; i++) sum += best[i] * (i + 1);
    out[threadIdx.x] = sum;
}
