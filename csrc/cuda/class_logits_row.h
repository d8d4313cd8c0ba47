// What one thread works out of a row of logits that lies in shared memory. Plain C++ as well as CUDA.
//
// With p = softmax(z), m the largest logit, e_k = exp(z_k - m), s the sum of e_k: loss = log s - (z_y - m),
// confidence = e_y / s, margin = z_y - max_{k != y} z_k. The label's logit is taken out of the row (-inf) before the
// others are read, so that neither the margin nor the sums of p over rows of other classes have to leave it out.
#pragma once

#include <math.h>

#include "common/elements.h"

namespace imbdyn {
namespace {

/// V neighbours, read at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Piece {
  T value[V];
};

/// How rows lie in shared memory: in steps of an odd number of pieces, so that 32 threads that read the same piece of
/// 32 rows meet in no bank more often than their bytes ask for.
template <class T, int V>
struct Layout {
  /// Floats that are written at once, where e has a place of its own.
  static constexpr int kFloats = V < 4 ? V : 4;
  static constexpr bool kInPlace = sizeof(T) == sizeof(float);
  int classes;

  IMBDYN_HOST_DEVICE int z_stride() const {
    return sizeof(T) * V == 16 && classes / V % 2 == 0 ? classes + V : classes;
  }
  IMBDYN_HOST_DEVICE int e_stride() const {
    return kInPlace ? z_stride() : classes / kFloats % 2 == 0 ? classes + kFloats : classes;
  }
};

/// exp(x); results below float32's normal numbers are 0, which saves half of the instructions.
IMBDYN_HOST_DEVICE inline float exponential(float x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x * 1.4426950408889634f));
  return result;
#else
  return expf(x);
#endif
}

IMBDYN_HOST_DEVICE inline void take_out(float* z) { *z = -INFINITY; }
IMBDYN_HOST_DEVICE inline void take_out(Bfloat16* z) { z->bits = 0xff80; }
IMBDYN_HOST_DEVICE inline void take_out(Float16* z) { z->bits = 0xfc00; }

struct RowSums {
  float loss;
  float margin;
  float confidence;
  /// What the e of its row are multiplied by: 1 / s.
  float scale;
  int prediction;
};

/// What is left to do for a row that holds NaN or +inf, or nothing but -inf; `row` is where it came from.
template <class T>
IMBDYN_HOST_DEVICE inline void special_row(const T* row, int classes, int y, float z_y, float* e, float* best,
                                           RowSums* of_row) {
  int first_nan = z_y != z_y ? y : classes;
  bool other_nan = false;
  for (int k = 0; k < classes; ++k) {
    const float z = to_real(row[k]);
    if (z != z && k < first_nan) first_nan = k;
    other_nan = other_nan || (z != z && k != y);
    e[k] = k == y ? 0 : NAN;
  }
  if (other_nan) *best = NAN;
  if (first_nan < classes) of_row->prediction = first_nan;
  of_row->scale = 1;
}

/// Works out a row with label y, and leaves e_k at `e`, 0 for the label; z is not kept.
template <class T, int V>
IMBDYN_HOST_DEVICE inline RowSums read_row(T* z, int classes, int y, float* e, const T* row) {
  using Some = Piece<T, V>;
  constexpr int kFloats = Layout<T, V>::kFloats;
  const float z_y = to_real(z[y]);
  take_out(z + y);
  float best = -INFINITY;
  int best_piece = 0;
#pragma unroll 4
  for (int k = 0; k < classes; k += V) {
    const Some piece = *reinterpret_cast<const Some*>(z + k);
    float highest = to_real(piece.value[0]);
    IMBDYN_UNROLL
    for (int i = 1; i < V; ++i) highest = fmaxf(highest, to_real(piece.value[i]));
    if (highest > best) {
      best = highest;
      best_piece = k;
    }
  }
  int first_best = best_piece;
  IMBDYN_UNROLL
  for (int i = V - 1; i >= 0; --i) {
    if (to_real(z[best_piece + i]) == best) first_best = best_piece + i;
  }
  const float m = fmaxf(best, z_y);
  float s_of[kFloats] = {};
#pragma unroll 4
  for (int k = 0; k < classes; k += V) {
    const Some piece = *reinterpret_cast<const Some*>(z + k);
    IMBDYN_UNROLL
    for (int from = 0; from < V; from += kFloats) {
      Piece<float, kFloats> exponentials;
      IMBDYN_UNROLL
      for (int i = 0; i < kFloats; ++i) {
        exponentials.value[i] = exponential(to_real(piece.value[from + i]) - m);
        s_of[i] += exponentials.value[i];
      }
      *reinterpret_cast<Piece<float, kFloats>*>(e + k + from) = exponentials;
    }
  }
  const float e_y = exponential(z_y - m);
  float s = e_y;
  IMBDYN_UNROLL
  for (int i = 0; i < kFloats; ++i) s += s_of[i];
  const int lower = first_best < y ? first_best : y;
  RowSums sums{logf(s) - (z_y - m), 0, 0, 1 / s, z_y > best ? y : z_y == best ? lower : first_best};
  sums.confidence = e_y * sums.scale;
  if (s != s) special_row(row, classes, y, z_y, e, &best, &sums);
  sums.margin = z_y - best;
  return sums;
}

}  // namespace
}  // namespace imbdyn
