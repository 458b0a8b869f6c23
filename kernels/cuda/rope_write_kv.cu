// Rotates queries in place, rotates keys, and writes keys and values to their slots.
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
  return second ? head[b] * cos[j] + head[a] * sin[j] : head[a] * cos[j] - head[b] * sin[j];
}

// One block a row and head: first the query heads, then the kv heads. At most 1024 threads, at
// least one a value, so that a head is read before any of it is overwritten.
template <class KV>
DEVICE void rope_write(float* q, const float* k, const float* v, const float* cos,
                       const float* sin, const uint32_t* slots, KV* keys, KV* values,
                       RopeShape s) {
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
  if (!inside) return;
  const int kv_head = head - s.n_heads;
  const size_t from = (size_t(row) * s.n_kv_heads + kv_head) * s.head_dim;
  const size_t to = kv_offset(slots[row], kv_head, s.n_kv_heads, s.block_size, s.head_dim) + i;
  store_kv(keys[to], rotated(k + from, i, s, c, n));
  store_kv(values[to], v[from + i]);
}

KERNEL rope_write_kv_f32(float* q, const float* k, const float* v, const float* cos,
                         const float* sin, const uint32_t* slots, float* keys, float* values,
                         RopeShape s) {
  rope_write(q, k, v, cos, sin, slots, keys, values, s);
}

KERNEL rope_write_kv_bf16(float* q, const float* k, const float* v, const float* cos,
                          const float* sin, const uint32_t* slots, bf16* keys, bf16* values,
                          RopeShape s) {
  rope_write(q, k, v, cos, sin, slots, keys, values, s);
}

KERNEL rope_write_kv_fp8(float* q, const float* k, const float* v, const float* cos,
                         const float* sin, const uint32_t* slots, fp8* keys, fp8* values,
                         RopeShape s) {
  rope_write(q, k, v, cos, sin, slots, keys, values, s);
}
