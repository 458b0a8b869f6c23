// Values one by one.
#include "common/math.cuh"

KERNEL fill(float* x, float value, size_t n) {
  for (size_t i = thread_of_grid(); i < n; i += threads_of_grid()) x[i] = value;
}

// out += scale * x.
KERNEL add_scaled(float* out, const float* x, float scale, size_t n) {
  for (size_t i = thread_of_grid(); i < n; i += threads_of_grid()) out[i] = fmaf(x[i], scale, out[i]);
}

// x = cap * tanh(scale * x / cap); a cap of 0 is none.
KERNEL scale_softcap(float* x, float scale, float cap, size_t n) {
  for (size_t i = thread_of_grid(); i < n; i += threads_of_grid()) x[i] = softcap(scale * x[i], cap);
}

KERNEL clamp(float* x, float limit, size_t n) {
  for (size_t i = thread_of_grid(); i < n; i += threads_of_grid()) {
    x[i] = fminf(fmaxf(x[i], -limit), limit);
  }
}
