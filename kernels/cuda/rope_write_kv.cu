// Rotates queries in place, rotates keys, and writes keys and values to their slots. Products and
// sums are rounded one by one, as on the CPU, so that a cache holds the same bits.
#include "common/kv.cuh"

struct RopeShape {
  int n_heads, n_kv_heads, head_dim, rotary_dim;
  int interleaved, block_size;
};

// Value `i` of a head after rotation.
DEVICE float rotated(const float* head, int i, const RopeShape& s, const float* cos,
                     const float* sin) {
  if (i >= s.rotary_dim) return head[i];
  const int half = s.rotary_dim / 2;
  const int j = s.interleaved ? i / 2 : i % half;
  const bool second = s.interleaved ? i & 1 : i >= half;
  const int a = s.interleaved ? 2 * j : j, b = s.interleaved ? 2 * j + 1 : j + half;
  return second ? __fadd_rn(__fmul_rn(head[b], cos[j]), __fmul_rn(head[a], sin[j]))
                : __fsub_rn(__fmul_rn(head[a], cos[j]), __fmul_rn(head[b], sin[j]));
}

// Largest bits of sizes over a block, for all threads: of numbers those of the largest, and
// those of no numbers are beyond. `scratch`: a word a warp.
DEVICE uint32_t largest_bits(uint32_t bits, uint32_t* scratch) {
#pragma unroll
  for (int d = 16; d; d >>= 1) bits = max(bits, __shfl_xor_sync(ALL_LANES, bits, d));
  if (lane_id() == 0) scratch[warp_id()] = bits;
  __syncthreads();
  for (int w = 0; w < int(blockDim.x) / 32; w++) bits = max(bits, scratch[w]);
  return bits;
}

// What values are multiplied by before they are stored, and what loaded ones are to be multiplied
// by. A value that is not a number makes the whole slot so; values too small to divide by are as
// good as zero.
template <class KV>
DEVICE float2 scales(uint32_t largest_bits) {
  const float most = Scaled<KV>::MOST, largest = __uint_as_float(largest_bits);
  if (largest_bits >= 0x7f800000u) return make_float2(0.f, __uint_as_float(0x7fc00000u));
  if (largest < __fmul_rn(1.17549435e-38f, most)) return make_float2(0.f, 0.f);
  return make_float2(__fdiv_rn(most, largest), __fmul_rn(__fdiv_rn(largest, most), Scaled<KV>::UNIT));
}

struct Caches {
  void* keys;
  void* values;
  // Null where the type has none.
  float* key_scales;
  float* value_scales;
};

// Writes a value of a key and one of a value, and their scales; all threads of a head.
template <class KV>
DEVICE void write_slot(float key, float value, bool inside, uint32_t slot, int kv_head,
                       const Caches& to, const RopeShape& s) {
  if (Scaled<KV>::YES) {
    __shared__ uint32_t of_key[32], of_value[32];
    const float2 k = scales<KV>(largest_bits(__float_as_uint(fabsf(key)), of_key));
    const float2 v = scales<KV>(largest_bits(__float_as_uint(fabsf(value)), of_value));
    key = __fmul_rn(key, k.x);
    value = __fmul_rn(value, v.x);
    if (threadIdx.x == 0) {
      const size_t at = kv_offset(slot, kv_head, s.n_kv_heads, s.block_size, 1);
      to.key_scales[at] = k.y;
      to.value_scales[at] = v.y;
    }
  }
  if (!inside) return;
  const size_t at = kv_offset(slot, kv_head, s.n_kv_heads, s.block_size, s.head_dim) + threadIdx.x;
  store_kv(static_cast<KV*>(to.keys)[at], key);
  store_kv(static_cast<KV*>(to.values)[at], value);
}

// One block a row and head: first the query heads, then the kv heads. At most 1024 threads, at
// least one a value, so that a head is read before any of it is overwritten.
template <class KV>
DEVICE void rope_write(float* q, const float* k, const float* v, const float* cos,
                       const float* sin, const uint32_t* slots, Caches to, RopeShape s) {
  const int row = blockIdx.x, head = blockIdx.y, i = threadIdx.x;
  const float *c = cos + size_t(row) * (s.rotary_dim / 2), *n = sin + size_t(row) * (s.rotary_dim / 2);
  const bool inside = i < s.head_dim;
  if (head < s.n_heads) {
    float* at = q + (size_t(row) * s.n_heads + head) * s.head_dim;
    const float y = inside ? rotated(at, i, s, c, n) : 0.f;
    __syncthreads();
    if (inside) at[i] = y;
    return;
  }
  const int kv_head = head - s.n_heads;
  const size_t from = (size_t(row) * s.n_kv_heads + kv_head) * s.head_dim;
  const float key = inside ? rotated(k + from, i, s, c, n) : 0.f;
  const float value = inside ? v[from + i] : 0.f;
  write_slot<KV>(key, value, inside, slots[row], kv_head, to, s);
}

#define ROPE_WRITE_KV(NAME, KV)                                                             \
  KERNEL rope_write_kv_##NAME(float* q, const float* k, const float* v, const float* cos,   \
                              const float* sin, const uint32_t* slots, Caches to,           \
                              RopeShape s) {                                                \
    rope_write<KV>(q, k, v, cos, sin, slots, to, s);                                        \
  }

ROPE_WRITE_KV(f32, float)
ROPE_WRITE_KV(bf16, bf16)
ROPE_WRITE_KV(int8, int8)
ROPE_WRITE_KV(fp8, fp8)
