// out = activation(gate) * up, elementwise; without `up`, the activation alone.
#include "common/math.cuh"

KERNEL activate(int code, float alpha, float limit, const float* gate, const float* up, size_t n,
                float* out) {
  for (size_t i = thread_of_grid(); i < n; i += threads_of_grid()) {
    if (code == CLAMPED_SWISH) {
      const float g = fminf(gate[i], limit), u = fminf(fmaxf(up[i], -limit), limit);
      out[i] = (u + 1.f) * g * sigmoid(alpha * g);
    } else {
      const float y = activate(code, gate[i]);
      out[i] = up ? y * up[i] : y;
    }
  }
}
