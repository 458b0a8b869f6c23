// Rows of 20 values: every second row begins in the middle of 16 bytes.
extern "C" __global__ void tile_pitch(const unsigned short* in, unsigned* out) {
    __shared__ __align__(16) unsigned short tile[8][20];
    for (int i = threadIdx.x; i < 160; i += 32) tile[i / 20][i % 20] = in[i];
    __syncwarp();
    unsigned at = (unsigned)__cvta_generic_to_shared(&tile[threadIdx.x % 8][0]), r;
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r) : "r"(at));  // BUG
    out[threadIdx.x] = r;
}
