// A group of 32 activations in int8; the codes lie apart.
#pragma once
#include "types.cuh"

struct __align__(8) GroupMeta {
  float scale;
  // Sums of the codes of each half.
  short low, high;
};
