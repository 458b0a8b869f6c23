// Inline assembly that only compute capability 9.0 has: barriers in shared memory, bulk copies
// and the products of a warp group (four warps).
#pragma once
#include "ptx.cuh"

// A barrier in shared memory. A phase ends when all arrivals and all announced bytes are there.
struct __align__(8) Mbarrier {
  uint64_t state;
};

DEVICE void mbarrier_init(Mbarrier& barrier, int n_arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(&barrier)),
               "r"(n_arrivals)
               : "memory");
}

DEVICE void mbarrier_arrive(Mbarrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(&barrier))
               : "memory");
}

// Arrives, and announces bytes that copies will bring.
DEVICE void mbarrier_arrive_expect(Mbarrier& barrier, int n_bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                   shared_address(&barrier)),
               "r"(n_bytes)
               : "memory");
}

// Waits until the phase of that parity has ended; of a new barrier, the phase before the first
// (parity 1) has.
DEVICE void mbarrier_wait(Mbarrier& barrier, int parity) {
  int done;
  do {
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n}\n"
        : "=r"(done)
        : "r"(shared_address(&barrier)), "r"(parity)
        : "memory");
  } while (!done);
}

// Copies a run of bytes (a multiple of 16) to shared memory; they count at the barrier.
DEVICE void bulk_copy(void* shared, const void* global, int n_bytes, Mbarrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(n_bytes), "r"(shared_address(&barrier))
      : "memory");
}

// What this thread wrote to shared memory is there for products and bulk copies.
DEVICE void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
}

// Before products: what threads did with registers is done.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }

DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Waits until at most N of the groups committed last are still computed.
template <int N>
DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(N) : "memory");
}

// Keeps the compiler from using sums before the wait in front of it.
template <int N>
DEVICE void wgmma_done(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// Describes rows of 64 bytes that follow each other, whose four parts of 16 bytes are exchanged
// by the bits 7 and 8 of their address (`swizzled`).
DEVICE uint64_t wgmma_rows(const void* shared) {
  constexpr uint64_t EIGHT_ROWS = 512, SWIZZLE_64 = 2;
  return (shared_address(shared) & 0x3ffff) >> 4 | uint64_t(1) << 16 | (EIGHT_ROWS >> 4) << 32 |
         SWIZZLE_64 << 62;
}

// d[64][N] (+)= a[64][16] b[N][16], both described: warp w of the group has rows 16w..16w+15,
// a lane (g, t) of it columns 8i + 2t + c % 2 of rows g + c / 2 * 8 in d[4i + c].
#define WGMMA_N32(TYPE, NAME)                                                                      \
  DEVICE void wgmma(float (&d)[16], uint64_t a, uint64_t b, bool adds, TYPE) {                     \
    asm volatile(                                                                                  \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %18, 0;\n"                                               \
        "wgmma.mma_async.sync.aligned.m64n32k16.f32." #NAME "." #NAME " {"                         \
        "%0, %1, %2, %3, %4, %5, %6, %7, "                                                         \
        "%8, %9, %10, %11, %12, %13, %14, %15}, "                                                  \
        "%16, %17, p, 1, 1, 0, 0;\n}\n"                                                            \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),                                          \
          "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),                                          \
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),                                        \
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])                                       \
        : "l"(a), "l"(b), "r"(int(adds))                                                           \
        : "memory");                                                                               \
  }

#define WGMMA_N128(TYPE, NAME)                                                                     \
  DEVICE void wgmma(float (&d)[64], uint64_t a, uint64_t b, bool adds, TYPE) {                     \
    asm volatile(                                                                                  \
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                               \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." #NAME "." #NAME " {"                        \
        "%0, %1, %2, %3, %4, %5, %6, %7, "                                                         \
        "%8, %9, %10, %11, %12, %13, %14, %15, "                                                   \
        "%16, %17, %18, %19, %20, %21, %22, %23, "                                                 \
        "%24, %25, %26, %27, %28, %29, %30, %31, "                                                 \
        "%32, %33, %34, %35, %36, %37, %38, %39, "                                                 \
        "%40, %41, %42, %43, %44, %45, %46, %47, "                                                 \
        "%48, %49, %50, %51, %52, %53, %54, %55, "                                                 \
        "%56, %57, %58, %59, %60, %61, %62, %63}, "                                                \
        "%64, %65, p, 1, 1, 0, 0;\n}\n"                                                            \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),                                          \
          "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),                                          \
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),                                        \
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),                                      \
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),                                      \
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),                                      \
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),                                      \
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),                                      \
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),                                      \
          "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),                                      \
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),                                      \
          "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),                                      \
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]),                                      \
          "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),                                      \
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),                                      \
          "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])                                       \
        : "l"(a), "l"(b), "r"(int(adds))                                                           \
        : "memory");                                                                               \
  }

WGMMA_N32(bf16, bf16)
WGMMA_N32(__half, f16)
WGMMA_N128(bf16, bf16)
WGMMA_N128(__half, f16)
