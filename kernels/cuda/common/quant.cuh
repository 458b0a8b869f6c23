// Packed weights of the block formats: tiles of 16 output columns, groups of 32 inputs, bit
// planes of quads (kernels/src/format/layout.rs says how they lie). A quad of a column is one
// 32-bit word of a matrix fragment: lane (g, t) of a warp takes quads t and t + 4 of columns g
// and g + 8, so weights go from memory to the tensor cores through registers alone.
#pragma once
#include "types.cuh"

enum ScaleKind { PER_GROUP, PER_GROUP_MIN, SUPER32_MIN, SUPER16, SUPER16_MIN };

template <int LOW_, int HIGH_, int ZERO_, ScaleKind KIND_, bool CODEBOOK_ = false>
struct Format {
  static constexpr int LOW = LOW_, HIGH = HIGH_, ZERO = ZERO_;
  static constexpr ScaleKind KIND = KIND_;
  static constexpr bool CODEBOOK = CODEBOOK_;
  static constexpr int LINES = LOW + HIGH;
  static constexpr bool HALVES = KIND == SUPER16 || KIND == SUPER16_MIN;
  static constexpr bool HAS_MIN = KIND != PER_GROUP && KIND != SUPER16;
  static constexpr int SUPER_BYTES =
      KIND == SUPER16 ? 32 : (KIND == SUPER32_MIN || KIND == SUPER16_MIN ? 64 : 0);
  static constexpr int GROUP_BYTES = KIND == PER_GROUP_MIN ? 64 : 32;
  static DEVICE size_t tile_lines(int n_groups) { return size_t(n_groups) * LINES * 64; }
  static DEVICE size_t tile_scales(int n_groups) {
    return size_t(ceil_div(n_groups, 8)) * SUPER_BYTES + size_t(n_groups) * GROUP_BYTES;
  }
};

using Q4_0 = Format<4, 0, 8, PER_GROUP>;
using Q4_1 = Format<4, 0, 0, PER_GROUP_MIN>;
using Q5_0 = Format<4, 1, 16, PER_GROUP>;
using Q5_1 = Format<4, 1, 0, PER_GROUP_MIN>;
using Q8_0 = Format<8, 0, 128, PER_GROUP>;
using Q2_K = Format<2, 0, 0, SUPER16_MIN>;
using Q3_K = Format<2, 1, 4, SUPER16>;
using Q4_K = Format<4, 0, 0, SUPER32_MIN>;
using Q5_K = Format<4, 1, 0, SUPER32_MIN>;
using Q6_K = Format<4, 2, 32, SUPER16>;
using IQ4_NL = Format<4, 0, 128, PER_GROUP, true>;

// IQ4_NL's values plus 128, for four codes at once.
DEVICE uint32_t lookup_iq4(uint32_t codes) {
  const uint32_t pairs = codes | codes >> 4;
  const uint32_t select = ((pairs & 0xff) | (pairs >> 8 & 0xff00)) & 0x7777;
  const uint32_t low = __byte_perm(0x3f2d1801, 0x766a5d4f, select);
  const uint32_t high = __byte_perm(0xa6998d81, 0xf1d9c5b5, select);
  const uint32_t mask = (codes >> 3 & 0x01010101) * 0xff;
  return (low & ~mask) | (high & mask);
}

// Words of the planes of one column of a group that a lane (g, t) needs: quads t and t + 4.
template <class F>
struct Words {
  uint32_t low[F::LOW == 8 ? 2 : 1];
  uint32_t high;
};

// `lines`: of the group, as words [LINES][16].
template <class F>
DEVICE Words<F> load_words(const uint32_t* lines, int column, int t) {
  Words<F> w;
  w.low[0] = __ldg(lines + (t % F::LOW) * 16 + column);
  if constexpr (F::LOW == 8) w.low[1] = __ldg(lines + (t + 4) * 16 + column);
  w.high = 0;
  if constexpr (F::HIGH > 0) w.high = __ldg(lines + (F::LOW + t % F::HIGH) * 16 + column);
  return w;
}

// Four unsigned codes: of quad t (second = 0) or t + 4 (second = 1).
template <class F>
DEVICE uint32_t quad_of(const Words<F>& w, int t, int second) {
  uint32_t codes;
  const int quad = t + 4 * second;
  if constexpr (F::LOW == 8) {
    codes = second ? w.low[1] : w.low[0];
  } else {
    constexpr uint32_t MASK = ((1u << F::LOW) - 1) * 0x01010101u;
    codes = w.low[0] >> (F::LOW * (quad / F::LOW)) & MASK;
  }
  if constexpr (F::HIGH > 0) {
    constexpr uint32_t MASK = ((1u << F::HIGH) - 1) * 0x01010101u;
    codes |= (w.high >> (F::HIGH * (quad / F::HIGH)) & MASK) << F::LOW;
  }
  if constexpr (F::CODEBOOK) codes = lookup_iq4(codes);
  return codes;
}

DEVICE float load_f16(const uint8_t* p) { return __half2float(*reinterpret_cast<const __half*>(p)); }

// Scales and offsets of both halves of a group in one column.
struct Scales {
  float scale[2], min[2];
};

// `scales`: of the tile.
template <class F>
DEVICE Scales load_scales(const uint8_t* scales, int group, int column) {
  Scales s;
  const uint8_t* super = scales + size_t(group / 8) * (F::SUPER_BYTES + 8 * F::GROUP_BYTES);
  const uint8_t* own = scales + size_t(group / 8 + 1) * F::SUPER_BYTES + size_t(group) * F::GROUP_BYTES;
  s.min[0] = s.min[1] = 0.f;
  if constexpr (F::KIND == PER_GROUP) {
    s.scale[0] = s.scale[1] = load_f16(own + 2 * column);
  } else if constexpr (F::KIND == PER_GROUP_MIN) {
    s.scale[0] = s.scale[1] = load_f16(own + 2 * column);
    s.min[0] = s.min[1] = load_f16(own + 32 + 2 * column);
  } else if constexpr (F::KIND == SUPER32_MIN) {
    s.scale[0] = s.scale[1] = load_f16(super + 2 * column) * float(own[column]);
    s.min[0] = s.min[1] = -(load_f16(super + 32 + 2 * column) * float(own[16 + column]));
  } else if constexpr (F::KIND == SUPER16) {
    const float d = load_f16(super + 2 * column);
    s.scale[0] = d * float(int8_t(own[column]));
    s.scale[1] = d * float(int8_t(own[16 + column]));
  } else {
    const float d = load_f16(super + 2 * column), m = load_f16(super + 32 + 2 * column);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int packed = own[16 * half + column];
      s.scale[half] = d * float(packed & 15);
      s.min[half] = -(m * float(packed >> 4));
    }
  }
  return s;
}
