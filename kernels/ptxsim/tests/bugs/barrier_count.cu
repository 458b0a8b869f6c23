// A named barrier for 64 threads that 96 arrive at.
extern "C" __global__ void barrier_count(float* out, int n) {
    if (threadIdx.x / 32 < n)
        asm volatile("barrier.sync 1, %0;" ::"r"(threadIdx.x < 32 ? 96 : 64) : "memory");  // BUG
    out[threadIdx.x] = 1.0f;
}
