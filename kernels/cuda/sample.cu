// Draws a token from each row of logits, or looks one up, so that only tokens and what their
// log-probabilities are made of leave the device. One block a row. What a list in shared memory
// cannot hold is left to the host, row by row; logits are as before when the kernel ends.
#include "common/answer.cuh"
#include "common/ranked.cuh"

// Best tokens among which the end of `top_p` is looked for, in a vocabulary beyond the list.
constexpr int AMONG = 1024;

enum Kind : int { SCORE, GREEDY, DRAW };

// A change of one logit, in this order: a bias, a repetition penalty, what occurrences cost, a
// ban. No token of a row has two.
struct Change {
  uint32_t token;
  float bias, cost;
  int is_repeated, is_banned;
};

// Offsets are in bytes from the first row of all.
struct Wanted {
  double u;
  float scale, top_p;
  // Logits this much below the greatest and more have, by min_p, no chance.
  float depth;
  float repetition;
  int kind, top_k;
  // SCORE: the token.
  int target;
  // Below zero: no log-probabilities.
  int n_top;
  int n_changes, changes, first_saved;
  // Words of what is allowed; below zero: all is.
  int n_words, words;
  int unused;
};

// Changes logits in place and keeps what they were.
DEVICE void change(const Change* all, int n, float repetition, float* logits, float* saved) {
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += THREADS) {
    const Change c = all[i];
    float x = logits[c.token];
    saved[i] = x;
    x = __fadd_rn(x, c.bias);
    if (c.is_repeated) x = x > 0.f ? __fdiv_rn(x, repetition) : __fmul_rn(x, repetition);
    x = __fsub_rn(x, c.cost);
    logits[c.token] = c.is_banned ? -INFINITY : x;
  }
  __syncthreads();
}

DEVICE void restore(const Change* all, int n, float* logits, const float* saved) {
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += THREADS) logits[all[i].token] = saved[i];
  __syncthreads();
}

// A draw from all tokens.
DEVICE uint32_t draw_any(Lists& s, const Row& row, const double* sums, const Wanted& w, int best) {
  const float greatest = row.at(best);
  const int n_chunks = ceil_div(row.n, CHUNK);
  const double target = __dmul_rn(w.u, total_of(s, sums, n_chunks));
  double reached = 0.;
  int chunk = 0;
  while (true) {
    if (threadIdx.x == 0) {
#pragma unroll 1
      for (; chunk < n_chunks; chunk++) {
        const double after = __dadd_rn(reached, sums[chunk]);
        if (after > target) break;
        reached = after;
      }
      s.count = chunk;
    }
    __syncthreads();
    const int begin = s.count * CHUNK, len = min(CHUNK, row.n - begin);
    // Rounding left the sum a hair below.
    if (len <= 0) return uint32_t(best);
#pragma unroll 1
    for (int i = threadIdx.x; i < len; i += THREADS) {
      s.weights[i] = weight(row.at(begin + i), greatest, w.scale);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int found = -1;
#pragma unroll 2
      for (int i = 0; i < len && found < 0; i++) {
        reached = __dadd_rn(reached, double(s.weights[i]));
        if (reached > target) found = begin + i;
      }
      s.found = found;
      chunk++;
    }
    __syncthreads();
    if (s.found >= 0) return uint32_t(s.found);
  }
}

// Weights of a list; `by_rank` says whether ranks or ids come first in its entries.
DEVICE void weigh(Lists& s, int n, bool by_rank, float greatest, float scale) {
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += THREADS) {
    const uint64_t entry = s.entries[i];
    s.weights[i] = weight(logit_of(by_rank ? first_of(entry) : uint32_t(entry)), greatest, scale);
  }
  __syncthreads();
}

// The sum of weights, in order, for all threads.
DEVICE double total_weight(Lists& s, int n) {
  if (threadIdx.x == 0) {
    double total = 0.;
#pragma unroll 4
    for (int i = 0; i < n; i++) total = __dadd_rn(total, double(s.weights[i]));
    s.total = total;
  }
  __syncthreads();
  const double total = s.total;
  __syncthreads();
  return total;
}

// How many of a ranked list it takes for their weights to reach a share; more than there are, if
// all do not.
DEVICE int share_of(Lists& s, int n, double share) {
  if (threadIdx.x == 0) {
    double reached = 0.;
    int i = 0;
#pragma unroll 2
    for (; i < n; i++) {
      reached = __dadd_rn(reached, double(s.weights[i]));
      if (reached >= share) break;
    }
    s.found = i + 1;
  }
  __syncthreads();
  const int found = s.found;
  __syncthreads();
  return found;
}

// A draw from a list in order of ids.
DEVICE uint32_t draw_kept(Lists& s, int n, const Wanted& w, float greatest, int best) {
  weigh(s, n, false, greatest, w.scale);
  const double target = __dmul_rn(w.u, total_weight(s, n));
  if (threadIdx.x == 0) {
    double reached = 0.;
    uint32_t found = uint32_t(best);
#pragma unroll 2
    for (int i = 0; i < n; i++) {
      reached = __dadd_rn(reached, double(s.weights[i]));
      if (reached > target) {
        found = first_of(s.entries[i]);
        break;
      }
    }
    s.found = int(found);
  }
  __syncthreads();
  return uint32_t(s.found);
}

// Cuts a ranked list at `top_p`; below zero: its end is not in the list.
DEVICE int keep_share(Lists& s, const Row& row, const Wanted& w, float greatest, int n, bool has_top_k,
                      bool is_all, double* sums) {
  double total;
  if (has_top_k) {
    // The host sums in order of ids.
    sort_swapped(s, n);
    weigh(s, n, false, greatest, w.scale);
    total = total_weight(s, n);
    sort_swapped(s, n);
  } else {
    sum_chunks(row, greatest, w.scale, sums);
    total = total_of(s, sums, ceil_div(row.n, CHUNK));
  }
  weigh(s, n, true, greatest, w.scale);
  const int kept = share_of(s, n, __dmul_rn(double(w.top_p), total));
  if (kept <= n) return kept;
  return has_top_k || is_all ? n : -1;
}

// How many of a ranked list reach `least`.
DEVICE int keep_from(Lists& s, int n, float least) {
  if (threadIdx.x == 0) s.found = 0;
  __syncthreads();
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += THREADS) {
    const bool ends = i + 1 == n || !(logit_of(first_of(s.entries[i + 1])) >= least);
    if (ends && logit_of(first_of(s.entries[i])) >= least) s.found = i + 1;
  }
  __syncthreads();
  const int found = s.found;
  __syncthreads();
  return found;
}

// The token; false: the host has to draw it.
DEVICE bool draw(Lists& s, const Row& row, const Wanted& w, int best, double* sums, uint32_t& token) {
  const float greatest = row.at(best), least = __fadd_rn(greatest, w.depth);
  const bool has_top_k = w.top_k > 0 && w.top_k < row.n, has_top_p = w.top_p < 1.f;
  if (!has_top_k && !has_top_p && w.depth == -INFINITY) {
    sum_chunks(row, greatest, w.scale, sums);
    token = draw_any(s, row, sums, w, best);
    return true;
  }
  float from = least;
  if (has_top_k || has_top_p) from = reached_by(s, row, has_top_k ? min(w.top_k, CAPACITY) : AMONG);
  int n = ranked(s, row, from);
  if (n < 0) return false;
  if (has_top_k) n = min(n, w.top_k);
  if (has_top_p) n = keep_share(s, row, w, greatest, n, has_top_k, from == -INFINITY, sums);
  if (n < 0) return false;
  n = keep_from(s, n, least);
  sort_swapped(s, n);
  token = draw_kept(s, n, w, greatest, best);
  return true;
}

// What log-probabilities of a row are made of; false: the host has to find the best ones.
DEVICE bool report(Lists& s, const Row& row, int best, int n_top, double* sums, Answer& answer) {
  const float greatest = row.logits[best];
  sum_chunks(row, greatest, 1.f, sums);
  const double total = total_of(s, sums, ceil_div(row.n, CHUNK));
  n_top = min(n_top, row.n);
  if (n_top > 0) {
    const int n = ranked(s, row, reached_by(s, row, n_top));
    if (n < n_top) return false;
    if (int(threadIdx.x) < n_top) {
      const uint64_t entry = s.entries[threadIdx.x];
      answer.top[threadIdx.x].token = uint32_t(entry);
      // The logit itself: ranks know one zero only.
      answer.top[threadIdx.x].logit = row.logits[uint32_t(entry)];
    }
  }
  if (threadIdx.x == 0) {
    answer.total = total;
    answer.greatest = greatest;
    answer.n_top = n_top;
  }
  return true;
}

// `saved`: a float for each change. Dynamic shared memory: a double for each chunk of 256.
KERNEL __launch_bounds__(THREADS, 2)
sample_rows(float* logits, int n, const Wanted* wanted, float* saved, Answer* answers) {
  extern __shared__ double sums[];
  __shared__ Lists s;
  const Wanted w = wanted[blockIdx.x];
  const char* lists = reinterpret_cast<const char*>(wanted);
  const Change* changes = reinterpret_cast<const Change*>(lists + w.changes);
  float* own = logits + size_t(blockIdx.x) * n;
  Answer& answer = answers[blockIdx.x];
  const Row plain = {own, n, nullptr, 0};
  const int best = greatest_of(s, plain);
  bool is_done = !s.is_bad && best < n;
  __syncthreads();
  uint32_t token = uint32_t(w.kind == SCORE ? w.target : best);
  if (is_done && w.kind != SCORE && (w.kind == DRAW || w.n_changes || w.n_words >= 0)) {
    const Row row = {own, n, w.n_words < 0 ? nullptr : reinterpret_cast<const uint32_t*>(lists + w.words),
                     w.n_words};
    int first = best;
    if (w.n_changes || row.allowed) {
      change(changes, w.n_changes, w.repetition, own, saved + w.first_saved);
      first = greatest_of(s, row);
      is_done = !s.is_bad && first < n;
      __syncthreads();
      token = uint32_t(first);
    }
    if (is_done && w.kind == DRAW) is_done = draw(s, row, w, first, sums, token);
    if (w.n_changes) restore(changes, w.n_changes, own, saved + w.first_saved);
  }
  if (is_done && w.n_top >= 0) is_done = report(s, plain, best, w.n_top, sums, answer);
  if (threadIdx.x == 0) {
    answer.is_done = is_done;
    answer.token = token;
    if (is_done) answer.chosen = own[token];
  }
}
