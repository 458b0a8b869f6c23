// Two products in flight have the same sums in another order.
#include "hopper.cuh"
extern "C" __global__ void group_sums_of_another(const float* in, float* out) {
    __shared__ __align__(1024) uint4 a[128], b[16];
    a[threadIdx.x] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x < 16) b[threadIdx.x] = make_uint4(0, 0, 0, 0);
    fence_async();
    __syncthreads();
    float d[4] = {in[0], in[1], in[2], in[3]};
    group_fence();
    asm volatile("{.reg .pred p, q;\nsetp.ne.b32 p, %6, 0;\nsetp.eq.b32 q, %6, 0;\n"  // BUG
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, q, 1, 1, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%1, %0, %3, %2}, %4, %5, q, 1, 1, 0, 0;}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "l"(describe(a, 64)), "l"(describe(b, 8)), "r"(0) : "memory");
    group_commit();
    group_wait();
    out[threadIdx.x] = d[0];
}
