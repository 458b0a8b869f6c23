// Barriers in shared memory, bulk copies and products of warp groups (compute capability 9.0).
#pragma once
#include <cstdint>
#include <cuda_bf16.h>
#define INLINE __device__ __forceinline__
struct __align__(8) Barrier {
    uint64_t state;
};
INLINE unsigned at(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
INLINE void init(Barrier& b, int n) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(&b)), "r"(n) : "memory");
}
INLINE void arrive(Barrier& b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(&b)) : "memory");
}
INLINE void arrive_expect(Barrier& b, int n) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at(&b)), "r"(n) : "memory");
}
INLINE void wait(Barrier& b, int parity) {
    int done;
    do {
        asm volatile("{.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.b32 %0, 1, 0, p;}" : "=r"(done) : "r"(at(&b)), "r"(parity) : "memory");
    } while (!done);
}
INLINE void bulk_copy(void* to, const void* from, int n, Barrier& b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
                 "r"(at(to)), "l"(from), "r"(n), "r"(at(&b)) : "memory");
}
INLINE void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
INLINE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
INLINE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
INLINE void group_wait() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
// 16 inputs of rows without exchanged parts: the second half `rows` times 16 bytes further on.
INLINE uint64_t describe(const void* p, int rows) {
    return at(p) >> 4 | uint64_t(rows) << 16 | uint64_t(128 >> 4) << 32;
}
// Rows of 64 bytes with exchanged parts.
INLINE uint64_t describe_64(const void* p) {
    return at(p) >> 4 | uint64_t(1) << 16 | uint64_t(512 >> 4) << 32 | uint64_t(2) << 62;
}
// d[64][8] = a[64][16] b[8][16].
INLINE void product(float (&d)[4], uint64_t a, uint64_t b) {
    asm volatile("{.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, p, 1, 1, 0, 0;}"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b), "r"(0) : "memory");
}
