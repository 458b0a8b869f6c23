// Choosing experts for rows, dealing rows out to experts, putting together what comes back.
#include "common/math.cuh"

enum ScoreCode : int { SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN };

struct RouteArgs {
  // [n_rows][n_experts]; the bias is added for the choice, not for the weight.
  const float* logits;
  const float* bias;
  // [n_rows][n_used], ascending by expert.
  uint32_t* experts;
  float* weights;
  int n_experts, n_used, score, renormalize;
  // 0: no groups.
  int n_groups, n_groups_used;
  float scale;
};

// Scores and sums are f64: few values, and the same choice as on any other device.
struct Best {
  double value;
  int index;
};

// The larger; of equals the lower index. An index of -1 is nothing.
DEVICE Best better(Best a, Best b) {
  if (a.index < 0) return b;
  if (b.index < 0) return a;
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

DEVICE double shuffle(double x, int d) {
  return __hiloint2double(__shfl_xor_sync(ALL_LANES, __double2hiint(x), d),
                          __shfl_xor_sync(ALL_LANES, __double2loint(x), d));
}

// The best of `n` values that are not taken; the same for all lanes of a warp.
DEVICE int best_of(const double* values, const uint8_t* taken, int n) {
  Best best{0.0, -1};
  for (int i = lane_id(); i < n; i += 32) {
    if (!taken[i]) best = better(best, Best{values[i], i});
  }
  for (int d = 16; d; d >>= 1) {
    const Best other{shuffle(best.value, d), __shfl_xor_sync(ALL_LANES, best.index, d)};
    best = better(best, other);
  }
  return best.index;
}

DEVICE double warp_sum_f64(double x) {
  for (int d = 16; d; d >>= 1) x += shuffle(x, d);
  return x;
}

// Takes away the experts of the groups that are not among the best by their two best scores.
DEVICE void limit_groups(const RouteArgs& a, const double* choice, double* sums, uint8_t* taken,
                         uint8_t* group_taken) {
  const int lane = lane_id(), size = a.n_experts / a.n_groups;
  for (int group = lane; group < a.n_groups; group += 32) {
    Best first{0.0, -1}, second{0.0, -1};
    for (int i = 0; i < size; i++) {
      const Best now{choice[group * size + i], i};
      const Best top = better(first, now);
      second = better(second, top.index == now.index ? first : now);
      first = top;
    }
    sums[group] = first.value + (second.index < 0 ? 0.0 : second.value);
    group_taken[group] = 0;
  }
  __syncwarp();
  for (int i = 0; i < a.n_groups_used; i++) {
    const int group = best_of(sums, group_taken, a.n_groups);
    __syncwarp();
    if (lane == 0 && group >= 0) group_taken[group] = 1;
    __syncwarp();
  }
  for (int i = lane; i < a.n_experts; i += 32) taken[i] = !group_taken[i / size];
  __syncwarp();
}

// A block of one warp a row. Dynamic shared memory: scores, choice and sums of groups in f64,
// then a byte an expert and a byte a group.
KERNEL __launch_bounds__(32) route(RouteArgs a) {
  extern __shared__ double dynamic[];
  double *scores = dynamic, *choice = scores + a.n_experts, *sums = choice + a.n_experts;
  uint8_t* taken = reinterpret_cast<uint8_t*>(sums + a.n_groups);
  uint8_t* group_taken = taken + a.n_experts;
  const int lane = lane_id();
  const float* logits = a.logits + size_t(blockIdx.x) * a.n_experts;
  float max = -INFINITY;
  for (int i = lane; i < a.n_experts; i += 32) max = fmaxf(max, logits[i]);
  for (int d = 16; d; d >>= 1) max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, d));
  double sum = 0.0;
  for (int i = lane; i < a.n_experts; i += 32) {
    const double x = logits[i];
    scores[i] = a.score == SOFTMAX ? exp(x - double(max)) : a.score == SIGMOID ? 1.0 / (1.0 + exp(-x)) : x;
    sum += scores[i];
    taken[i] = 0;
  }
  sum = warp_sum_f64(sum);
  for (int i = lane; i < a.n_experts; i += 32) {
    if (a.score == SOFTMAX) scores[i] /= sum;
    choice[i] = scores[i] + (a.bias ? double(a.bias[i]) : 0.0);
  }
  __syncwarp();
  if (a.n_groups) limit_groups(a, choice, sums, taken, group_taken);

  // Lane j keeps the expert chosen as number j.
  int mine = -1;
  double weight = 0.0;
  for (int j = 0; j < a.n_used; j++) {
    const int expert = best_of(choice, taken, a.n_experts);
    __syncwarp();
    if (lane == 0 && expert >= 0) taken[expert] = 1;
    __syncwarp();
    if (lane == j) mine = expert;
  }
  // A score that is not a number chooses nothing; the lowest experts then stand in, with a weight
  // that is not a number either.
  const bool chosen = lane < a.n_used;
  if (chosen) weight = mine >= 0 ? scores[mine] : double(NAN);
  if (mine < 0) mine = lane;
  if (a.score == SOFTMAX_OF_CHOSEN) {
    weight = chosen ? exp(weight - double(max)) : 0.0;
    weight /= warp_sum_f64(weight);
  }
  if (a.renormalize) weight /= warp_sum_f64(chosen ? weight : 0.0) + 1e-20;

  // Experts ascend: the place of mine is how many are lower.
  int place = 0;
  for (int j = 0; j < a.n_used; j++) place += __shfl_sync(ALL_LANES, mine, j) < mine;
  if (chosen) {
    const size_t at = size_t(blockIdx.x) * a.n_used + place;
    a.experts[at] = uint32_t(mine);
    a.weights[at] = float(weight * double(a.scale));
  }
}

// A warp an expert: `offsets[e]` is where its rows begin in `rows`, ascending; `places` says for
// each choice of a row where it went. Grid: (experts), blocks of 32.
KERNEL __launch_bounds__(32)
deal_rows(const uint32_t* experts, int n_rows, int n_used, uint32_t* offsets, uint32_t* rows,
          uint32_t* places) {
  const uint32_t expert = blockIdx.x, n = uint32_t(n_rows) * n_used, lane = lane_id();
  uint32_t lower = 0, equal = 0;
  for (uint32_t i = lane; i < n; i += 32) {
    lower += experts[i] < expert;
    equal += experts[i] == expert;
  }
  for (int d = 16; d; d >>= 1) {
    lower += __shfl_xor_sync(ALL_LANES, lower, d);
    equal += __shfl_xor_sync(ALL_LANES, equal, d);
  }
  if (lane == 0) {
    offsets[expert] = lower;
    if (expert + 1 == gridDim.x) offsets[gridDim.x] = lower + equal;
  }
  for (uint32_t first = 0; first < n; first += 32) {
    const uint32_t i = first + lane;
    const bool mine = i < n && experts[i] == expert;
    const uint32_t all = __ballot_sync(ALL_LANES, mine);
    if (mine) {
      const uint32_t place = lower + __popc(all & ((1u << lane) - 1));
      rows[place] = i / n_used;
      places[i] = place;
    }
    lower += __popc(all);
  }
}

// out[row] += sum over its experts, ascending, of weight * x[place]. One block a row.
KERNEL combine_experts(const float* x, int width, const uint32_t* places, const float* weights,
                       int n_used, float* out) {
  const size_t row = blockIdx.x;
  for (int i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = out[row * width + i];
    for (int j = 0; j < n_used; j++) {
      const size_t choice = row * n_used + j;
      sum = fmaf(x[size_t(places[choice]) * width + i], weights[choice], sum);
    }
    out[row * width + i] = sum;
  }
}
