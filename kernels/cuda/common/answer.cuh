// What sampling leaves of a row of logits.
#pragma once
#include <cstdint>

// Best tokens that are reported at most.
constexpr int MOST_TOP = 20;

struct Answer {
  // The sum of weights of the row as it was, by which log-probabilities are found.
  double total;
  // 1: done. 0: left to the host.
  int is_done;
  uint32_t token;
  float chosen, greatest;
  int n_top, unused;
  struct {
    uint32_t token;
    float logit;
  } top[MOST_TOP];
};
