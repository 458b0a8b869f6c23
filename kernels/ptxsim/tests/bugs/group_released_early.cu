// The operand's memory is given back before the products that read it are waited for.
#include "hopper.cuh"
extern "C" __global__ void group_released_early(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    __shared__ Barrier full, empty;
    if (threadIdx.x == 0) {
        init(full, 1);
        init(empty, 128);
        fence_async();
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        if (threadIdx.x == 128) {
            for (int i = 0; i < 2; i++) {
                if (i > 0) wait(empty, 0);
                arrive_expect(full, sizeof a + sizeof b);
                bulk_copy(a, in, sizeof a, full);  // BUG
                bulk_copy(b, in, sizeof b, full);
            }
        }
        __syncwarp();
        wait(full, 1);
        return;
    }
    for (int i = 0; i < 2; i++) {
        float d[4] = {in[0], in[1], in[2], in[3]};
        wait(full, i);
        group_fence();
        product(d, describe(a, 64), describe(b, 8));
        group_commit();
        if (i == 0) arrive(empty);
        group_wait();
        out[threadIdx.x] = d[0];
    }
}
