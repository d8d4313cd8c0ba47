// exp for arguments up to 0, in plain arithmetic that compilers vectorise. Internal linkage: see common/elements.h.
#pragma once

#include <math.h>

#include "common/elements.h"

namespace imbdyn {
namespace {

/// exp(x) for x <= 0, at most 1 ulp off; 0 where the result is below the smallest normal number; NaN stays NaN.
///
/// exp(x) = 2^n exp(r) with n = round(x / ln 2) and |r| <= ln(2)/2; exp(r) = 1 + r + r^2 p(r) with p the minimax
/// polynomial of degree 4 (relative error 3e-9). ln 2 is split in two (Cody and Waite 1980): n times its first
/// part is exact. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
inline float exp_nonpositive(float x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kRound = 12582912.0f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kSmallest = -87.3365402f;  // exp of it is just above 2^-126
  const float shifted = x * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 0x1.6a23cep-10f;
  p = p * r + 0x1.123a20p-7f;
  p = p * r + 0x1.5558f2p-5f;
  p = p * r + 0x1.555492p-3f;
  p = p * r + 0x1.fffffcp-2f;
  const float value = p * (r * r) + r + 1.0f;
  const float scale = float_of_bits((bits_of_float(shifted) - bits_of_float(kRound) + 127u) << 23);
  return x < kSmallest ? 0.0f : value * scale;
}

inline double exp_nonpositive(double x) { return ::exp(x); }

}  // namespace
}  // namespace imbdyn
