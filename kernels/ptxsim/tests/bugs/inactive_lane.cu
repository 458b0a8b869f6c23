// A matrix multiply inside a bounds check.
extern "C" __global__ void inactive_lane(const unsigned* in, float* out, int n) {
    unsigned a = in[threadIdx.x];
    float c0 = 0, c1 = 0, c2 = 0, c3 = 0;
    if (threadIdx.x < n)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%4,%4,%4},{%4,%4},{%0,%1,%2,%3};"  // BUG
                     : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3) : "r"(a));
    out[threadIdx.x] = c0 + c1 + c2 + c3;
}
