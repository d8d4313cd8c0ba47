// The four element types and how one becomes a number of the type that sums are made in.
//
// Everything here has internal linkage (the unnamed namespace): the header is compiled once per instruction set, and
// the linker must never give the baseline a copy that was compiled for AVX2.
#pragma once

#include <stdint.h>
#include <string.h>

#include "common/arrays.h"

#if defined(__CUDACC__)
#define IMBDYN_HOST_DEVICE __host__ __device__
#define IMBDYN_UNROLL _Pragma("unroll")
#else
#define IMBDYN_HOST_DEVICE
#define IMBDYN_UNROLL
#endif

namespace imbdyn {
namespace {

struct Bfloat16 {
  uint16_t bits;
};

struct Float16 {
  uint16_t bits;
};

IMBDYN_HOST_DEVICE inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

IMBDYN_HOST_DEVICE inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

IMBDYN_HOST_DEVICE inline double to_real(double x) { return x; }
IMBDYN_HOST_DEVICE inline float to_real(float x) { return x; }
IMBDYN_HOST_DEVICE inline float to_real(Bfloat16 x) { return float_of_bits(uint32_t{x.bits} << 16); }

/// No branch and no table, so that loops over it vectorise: multiplying by 2^112 moves the exponent's bias from 15
/// to 127 and makes subnormal halves normal; infinity and NaN get the exponent that the multiplication cannot give.
IMBDYN_HOST_DEVICE inline float to_real(Float16 x) {
  const uint32_t sign = (uint32_t{x.bits} & 0x8000u) << 16;
  const uint32_t magnitude = (uint32_t{x.bits} & 0x7fffu) << 13;
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  return float_of_bits(sign | (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite));
}

/// The type in which a row's arithmetic is done: float64 for float64, float32 for all else.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using Real = typename RealOf<T>::type;

/// What the widest load of a GPU brings.
template <class T>
struct alignas(16) Wide {
  static constexpr int kSize = 16 / sizeof(T);
  T value[kSize];
};

}  // namespace
}  // namespace imbdyn
