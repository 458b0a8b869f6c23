// Lists of candidates in shared memory, and the arithmetic of the sampler on the host, operation
// by operation: exponentials in f32, sums in f64, chunk by chunk of 256 in eight lanes. Nothing is
// contracted, so that what is drawn here is what would be drawn there.
#pragma once
#include "types.cuh"

constexpr int THREADS = 512;
// Candidates that a list holds at most.
constexpr int CAPACITY = 2048;
constexpr int CHUNK = 256;

// One row of logits, with what a grammar allows of it: a set of bits, or null for all. Tokens
// beyond its last word are not allowed.
struct Row {
  const float* logits;
  int n;
  const uint32_t* allowed;
  int n_words;

  DEVICE float at(int i) const {
    if (allowed && (i / 32 >= n_words || !(allowed[i / 32] >> (i % 32) & 1))) return -INFINITY;
    return logits[i];
  }
};

struct Lists {
  // Rank (the best lowest) and id, or id and rank.
  uint64_t entries[CAPACITY];
  float weights[CAPACITY];
  float values[THREADS / 32];
  int indices[THREADS / 32];
  double total;
  int count, found, is_bad;
};

// exp((logit - greatest) * scale), from a whole power of two and a polynomial.
DEVICE float weight(float logit, float greatest, float scale) {
  constexpr float ROUND = 12582912.f;
  float power = __fmul_rn(__fmul_rn(__fsub_rn(logit, greatest), scale), 1.44269504088896340736f);
  power = power > -126.f ? power : -126.f;
  const float shifted = __fadd_rn(power, ROUND);
  const float part = __fmul_rn(__fsub_rn(power, __fsub_rn(shifted, ROUND)), 0.693147180559945309417f);
  float series = 1.f / 720.f;
  series = __fadd_rn(__fmul_rn(series, part), 1.f / 120.f);
  series = __fadd_rn(__fmul_rn(series, part), 1.f / 24.f);
  series = __fadd_rn(__fmul_rn(series, part), 1.f / 6.f);
  series = __fadd_rn(__fmul_rn(series, part), 0.5f);
  series = __fadd_rn(__fmul_rn(series, part), 1.f);
  series = __fadd_rn(__fmul_rn(series, part), 1.f);
  const uint32_t whole = __float_as_uint(shifted) - __float_as_uint(ROUND);
  const float value = __fmul_rn(series, __uint_as_float((whole + 127u) << 23));
  return logit == -INFINITY ? 0.f : value;
}

// Ascending with falling logits; both zeros rank alike.
DEVICE uint32_t rank_of(float logit) {
  const uint32_t bits = __float_as_uint(__fadd_rn(logit, 0.f));
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
DEVICE float logit_of(uint32_t rank) {
  return __uint_as_float(rank >> 31 ? rank : ~rank & 0x7fffffffu);
}

DEVICE uint64_t entry_of(uint32_t first, uint32_t second) {
  return uint64_t(first) << 32 | second;
}
DEVICE uint32_t first_of(uint64_t entry) { return uint32_t(entry >> 32); }

// Sorts the first `n` entries, ascending; the rest up to a power of two is overwritten. All of
// these functions are called by all threads and leave all of them past a barrier.
DEVICE void sort(Lists& s, int n) {
  int n_all = 2;
  while (n_all < n) n_all *= 2;
#pragma unroll 1
  for (int i = n + threadIdx.x; i < n_all; i += THREADS) s.entries[i] = ~0ull;
  __syncthreads();
#pragma unroll 1
  for (int size = 2; size <= n_all; size *= 2) {
#pragma unroll 1
    for (int far = size / 2; far; far /= 2) {
#pragma unroll 1
      for (int t = threadIdx.x; t < n_all / 2; t += THREADS) {
        const int low = (t & (far - 1)) | (t & ~(far - 1)) << 1;
        const uint64_t a = s.entries[low], b = s.entries[low | far];
        if ((a > b) == ((low & size) == 0)) {
          s.entries[low] = b;
          s.entries[low | far] = a;
        }
      }
      __syncthreads();
    }
  }
}

// Sorts by what was second so far.
DEVICE void sort_swapped(Lists& s, int n) {
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += THREADS) {
    const uint64_t entry = s.entries[i];
    s.entries[i] = entry << 32 | entry >> 32;
  }
  sort(s, n);
}

// The index of the greatest, the lowest of equals; `n` where nothing is above minus infinity.
// Notes whether there is anything that is not a number below infinity.
DEVICE int greatest_of(Lists& s, const Row& row) {
  float value = -INFINITY;
  int index = row.n;
  bool is_bad = false;
  if (threadIdx.x == 0) s.is_bad = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < row.n; i += THREADS) {
    const float x = row.at(i);
    is_bad |= !(x < INFINITY);
    if (x > value) {
      value = x;
      index = i;
    }
  }
  auto take = [&](float other, int at) {
    if (other > value || (other == value && at < index)) {
      value = other;
      index = at;
    }
  };
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    const float other = __shfl_xor_sync(ALL_LANES, value, d);
    take(other, __shfl_xor_sync(ALL_LANES, index, d));
  }
  is_bad = __any_sync(ALL_LANES, is_bad);
  if (lane_id() == 0) {
    s.values[warp_id()] = value;
    s.indices[warp_id()] = index;
  }
  __syncthreads();
  if (lane_id() == 0 && is_bad) atomicOr(&s.is_bad, 1);
#pragma unroll 4
  for (int w = 0; w < THREADS / 32; w++) take(s.values[w], s.indices[w]);
  __syncthreads();
  return index;
}

// Sums of weights, chunk by chunk: eight threads a chunk.
DEVICE void sum_chunks(const Row& row, float greatest, float scale, double* sums) {
  const int n_chunks = ceil_div(row.n, CHUNK), lane = threadIdx.x % 8;
#pragma unroll 1
  for (int base = 0; base < n_chunks; base += THREADS / 8) {
    const int chunk = base + threadIdx.x / 8, begin = chunk * CHUNK;
    const int len = max(0, min(CHUNK, row.n - begin));
    double sum = 0.;
#pragma unroll 4
    for (int i = lane; i < len / 8 * 8; i += 8) {
      sum = __dadd_rn(sum, double(weight(row.at(begin + i), greatest, scale)));
    }
    double total = 0.;
#pragma unroll 1
    for (int i = 0; i < 8; i++) total = __dadd_rn(total, __shfl_sync(ALL_LANES, sum, i, 8));
    if (lane == 0 && len > 0) {
#pragma unroll 1
      for (int i = len / 8 * 8; i < len; i++) {
        total = __dadd_rn(total, double(weight(row.at(begin + i), greatest, scale)));
      }
      sums[chunk] = total;
    }
  }
  __syncthreads();
}

// The sum of the chunks' sums, for all threads.
DEVICE double total_of(Lists& s, const double* sums, int n_chunks) {
  if (threadIdx.x == 0) {
    double total = 0.;
#pragma unroll 4
    for (int i = 0; i < n_chunks; i++) total = __dadd_rn(total, sums[i]);
    s.total = total;
  }
  __syncthreads();
  const double total = s.total;
  __syncthreads();
  return total;
}

// Makes a list of all logits from `least` on, in any order, but for minus infinity, which has no
// chance. Gives how many there are; what is beyond the capacity is left out.
DEVICE int gather(Lists& s, const Row& row, float least) {
  if (threadIdx.x == 0) s.count = 0;
  __syncthreads();
#pragma unroll 2
  for (int base = 0; base < row.n; base += THREADS) {
    const int i = base + threadIdx.x;
    const float x = i < row.n ? row.at(i) : -INFINITY;
    const bool is_in = x >= least && x > -INFINITY;
    const uint32_t all = __ballot_sync(ALL_LANES, is_in);
    int at = 0;
    if (lane_id() == 0 && all) at = atomicAdd(&s.count, __popc(all));
    at = __shfl_sync(ALL_LANES, at, 0) + __popc(all & ((1u << lane_id()) - 1u));
    if (is_in && at < CAPACITY) s.entries[at] = entry_of(rank_of(x), uint32_t(i));
  }
  __syncthreads();
  const int count = s.count;
  __syncthreads();
  return count;
}

// A logit that at least `k` logits reach, if so many are above minus infinity, and few more: the
// `k`-th greatest of the maxima of interleaved pieces. `k` is at most the capacity.
DEVICE float reached_by(Lists& s, const Row& row, int k) {
  if (row.n <= CAPACITY) return -INFINITY;
#pragma unroll 1
  for (int piece = threadIdx.x; piece < CAPACITY; piece += THREADS) {
    float most = -INFINITY;
#pragma unroll 4
    for (int i = piece; i < row.n; i += CAPACITY) most = fmaxf(most, row.at(i));
    s.entries[piece] = entry_of(rank_of(most), uint32_t(piece));
  }
  __syncthreads();
  sort(s, CAPACITY);
  const float least = logit_of(first_of(s.entries[k - 1]));
  __syncthreads();
  return least;
}

// All logits from `least` on, best first, and how many they are; below zero: the list cannot hold
// them.
DEVICE int ranked(Lists& s, const Row& row, float least) {
  const int count = gather(s, row, least);
  if (count > CAPACITY) return -1;
  sort(s, count);
  return count;
}
