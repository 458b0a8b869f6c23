// Warps count together, and each reads the count before all have counted.
extern "C" __global__ void atomic_unsynced(int* out) {
    __shared__ int count;
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1);  // BUG
    out[threadIdx.x] = count;
}
