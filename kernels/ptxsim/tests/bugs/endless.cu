// Waits for a flag that nobody sets.
extern "C" __global__ void endless(volatile int* flag, int* out) {
    while (*flag == 0) {}  // BUG
    out[threadIdx.x] = 1;
}
