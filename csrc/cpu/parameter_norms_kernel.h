// sum w^2, sum g^2, sum dw^2 and sum w dw with dw = w - previous, reading each array once, all in float64.
//
// float64 because dw is what remains of two numbers that agree in most of their digits, and <w, dw> a small sum of
// large terms of both signs. Arrays that are neither float64 nor float32, or not of one type, are converted panel by
// panel. Internal linkage: see common/elements.h.
#pragma once

#include "common/elements.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// Elements that are converted at a time: three panels stay in the first cache.
constexpr int64_t kNormsPanel = 1024;

/// Independent sums, so that additions do not wait for each other and fill a vector. Fewer where an element goes into
/// more sums: all of them together must fit the registers.
template <bool kPrevious>
constexpr int kNormLanes = kPrevious ? 8 : 16;

template <bool kPrevious>
double sum_of_lanes(const double* lane) {
  double sum = 0;
  for (int l = 0; l < kNormLanes<kPrevious>; ++l) sum += lane[l];
  return sum;
}

template <class A, bool kGrad, bool kPrevious>
void add_norms(const A* weight, const A* grad, const A* previous, int64_t count, NormSums* sums) {
  constexpr int kLanes = kNormLanes<kPrevious>;
  double w_w[kLanes] = {}, g_g[kLanes] = {}, d_d[kLanes] = {}, w_d[kLanes] = {};
  const auto add_element = [&](int64_t i, int l) {
    const double w = weight[i];
    w_w[l] += w * w;
    if constexpr (kGrad) {
      const double g = grad[i];
      g_g[l] += g * g;
    }
    if constexpr (kPrevious) {
      const double d = w - previous[i];
      d_d[l] += d * d;
      w_d[l] += w * d;
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) add_element(i + l, l);
  }
  for (int l = 0; i < count; ++i, ++l) add_element(i, l);

  sums->weight += sum_of_lanes<kPrevious>(w_w);
  sums->grad += sum_of_lanes<kPrevious>(g_g);
  sums->update += sum_of_lanes<kPrevious>(d_d);
  sums->weight_update += sum_of_lanes<kPrevious>(w_d);
}

template <class A>
void add_given_norms(const A* weight, const A* grad, const A* previous, int64_t count, NormSums* sums) {
  if (grad == nullptr) {
    (previous == nullptr ? add_norms<A, false, false> : add_norms<A, false, true>)(weight, grad, previous, count, sums);
  } else {
    (previous == nullptr ? add_norms<A, true, false> : add_norms<A, true, true>)(weight, grad, previous, count, sums);
  }
}

template <class T, class A>
const A* convert(const void* data, int64_t begin, int64_t count, A* panel) {
  const T* const from = static_cast<const T*>(data) + begin;
  for (int64_t i = 0; i < count; ++i) panel[i] = static_cast<A>(to_real(from[i]));
  return panel;
}

inline const double* in_place_or_converted(const FlatArray& array, int64_t begin, int64_t count, double* panel) {
  if (!array.given) return nullptr;
  switch (array.type) {
    case ElementType::float64: return static_cast<const double*>(array.data) + begin;
    case ElementType::float32: return convert<float>(array.data, begin, count, panel);
    case ElementType::bfloat16: return convert<Bfloat16>(array.data, begin, count, panel);
    default: return convert<Float16>(array.data, begin, count, panel);
  }
}

/// Not for float64.
inline const float* in_place_or_converted(const FlatArray& array, int64_t begin, int64_t count, float* panel) {
  if (!array.given) return nullptr;
  switch (array.type) {
    case ElementType::float32: return static_cast<const float*>(array.data) + begin;
    case ElementType::bfloat16: return convert<Bfloat16>(array.data, begin, count, panel);
    default: return convert<Float16>(array.data, begin, count, panel);
  }
}

/// A is the type in which all three arrays are exact.
template <class A>
void add_panels(const NormsTile& tile, int64_t panel_size) {
  A panels[3][kNormsPanel];
  for (int64_t done = 0; done < tile.count; done += panel_size) {
    const int64_t left = tile.count - done;
    const int64_t count = left < panel_size ? left : panel_size;
    const int64_t begin = tile.begin + done;
    add_given_norms(in_place_or_converted(tile.parameter.weight, begin, count, panels[0]),
                    in_place_or_converted(tile.parameter.grad, begin, count, panels[1]),
                    in_place_or_converted(tile.parameter.previous, begin, count, panels[2]), count, tile.sums);
  }
}

inline bool not_given_or(const FlatArray& array, ElementType type) { return !array.given || array.type == type; }

inline bool all_are(const Parameter& p, ElementType type) {
  return not_given_or(p.weight, type) && not_given_or(p.grad, type) && not_given_or(p.previous, type);
}

inline bool any_is_float64(const Parameter& p) {
  return p.weight.type == ElementType::float64 || (p.grad.given && p.grad.type == ElementType::float64) ||
         (p.previous.given && p.previous.type == ElementType::float64);
}

inline void parameter_norms_kernel(const NormsTile& tile) {
  if (any_is_float64(tile.parameter)) {
    add_panels<double>(tile, all_are(tile.parameter, ElementType::float64) ? tile.count : kNormsPanel);
  } else {
    add_panels<float>(tile, all_are(tile.parameter, ElementType::float32) ? tile.count : kNormsPanel);
  }
}

}  // namespace
}  // namespace imbdyn
