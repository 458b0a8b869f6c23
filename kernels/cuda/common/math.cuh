// Functions of one value.
#pragma once
#include "types.cuh"

constexpr float LOG2_E = 1.4426950408889634f;

DEVICE float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

DEVICE float softcap(float x, float cap) { return cap > 0.f ? cap * tanhf(x / cap) : x; }

// Codes of `Activation`, as launches give them.
enum ActivationCode : int { SILU, GELU, GELU_TANH, QUICK_GELU, RELU, CLAMPED_SWISH };

// An activation that is not a gate only.
DEVICE float activate(int code, float x) {
  switch (code) {
    case SILU: return x * sigmoid(x);
    case GELU: return x * normcdff(x);
    case GELU_TANH: {
      const float u = 0.7978845608f * (x + 0.044715f * x * x * x);
      // (1 + tanh u) / 2, which would cancel.
      return x * sigmoid(2.f * u);
    }
    case QUICK_GELU: return x * sigmoid(1.702f * x);
    default: return fmaxf(x, 0.f);
  }
}
