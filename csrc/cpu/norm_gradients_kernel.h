// Sums of x and dy that the gradients of a normalisation's scale and bias are made of, reading both arrays once.
//
// By channels: s = sum d, q = sum d^2, b = sum dy and c = sum dy d of d = x - shift, panel by panel, in the type of the
// arithmetic; then, in float64, mean = shift + s/n, m2 = q - s^2/n, cross = c - b s/n. Panels merge by the pairwise
// rule of Chan, Golub and LeVeque (1979); the cross moment moves with its mean as in cross + (mean - to) b. A shift
// near the mean keeps the differences from cancelling. Internal linkage: see common/elements.h.
#pragma once

#include "common/elements.h"
#include "cpu/kernels.h"
#include "cpu/vectors.h"

namespace imbdyn {
namespace {

// Elements of a row at a time: a panel of x and one of dy stay in the first cache between the passes over them.
constexpr int64_t kNormRowPanel = 1024;
// Rows of at most a panel together whose steps alternate, so that a short row does not wait for its own mean.
constexpr int64_t kNormRowsAtOnce = 8;
// Rows whose sums are float32 before they go to float64.
constexpr int64_t kNormChunkRows = 64;

template <class T, class A>
const A* converted(const void* data, int64_t offset, int64_t count, A* panel) {
  const T* const from = static_cast<const T*>(data) + offset;
  for (int64_t i = 0; i < count; ++i) panel[i] = static_cast<A>(to_real(from[i]));
  return panel;
}

/// `count` neighbouring elements: where they lie, or converted.
inline const double* run_of(const Matrix& m, int64_t offset, int64_t count, double* panel) {
  switch (m.type) {
    case ElementType::float64: return static_cast<const double*>(m.data) + offset;
    case ElementType::float32: return converted<float>(m.data, offset, count, panel);
    case ElementType::bfloat16: return converted<Bfloat16>(m.data, offset, count, panel);
    default: return converted<Float16>(m.data, offset, count, panel);
  }
}

/// Not for float64.
inline const float* run_of(const Matrix& m, int64_t offset, int64_t count, float* panel) {
  switch (m.type) {
    case ElementType::float32: return static_cast<const float*>(m.data) + offset;
    case ElementType::bfloat16: return converted<Bfloat16>(m.data, offset, count, panel);
    default: return converted<Float16>(m.data, offset, count, panel);
  }
}

template <class A>
A mean_of(const A* x, int64_t count) {
  constexpr int64_t kLanes = kVectorLanes<A>;
  Vector<A> sum[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) sum[k] += load<A>(x + i + k * kLanes);
  }
  for (; i + kLanes <= count; i += kLanes) sum[0] += load<A>(x + i);
  for (int k = 1; k < 4; ++k) sum[0] += sum[k];
  A total = sum_of_lanes<A>(sum[0]);
  for (; i < count; ++i) total += x[i];
  return total / static_cast<A>(count);
}

/// Of d = x - shift and dy: sums of d, d^2, dy and dy d.
template <class A>
struct ShiftedSums {
  A s;
  A q;
  A b;
  A c;
};

/// The moments of `count` elements, at least one, from their sums.
template <class A>
ChannelMoments moments_of(A shift, const ShiftedSums<A>& sums, int64_t count) {
  const double s = sums.s, b = sums.b;
  const double off = s / static_cast<double>(count);
  const double m2 = sums.q - s * off;
  return {shift + off, m2 < 0 ? 0 : m2, b, sums.c - b * off};
}

template <class A, bool kGrad>
ShiftedSums<A> shifted_sums(const A* x, const A* dy, int64_t count, A shift) {
  constexpr int64_t kLanes = kVectorLanes<A>;
  Vector<A> s[2] = {}, q[2] = {}, b[2] = {}, c[2] = {};
  const auto add = [&](int64_t i, int k) {
    const Vector<A> d = load<A>(x + i) - shift;
    s[k] += d;
    q[k] += d * d;
    if constexpr (kGrad) {
      const Vector<A> g = load<A>(dy + i);
      b[k] += g;
      c[k] += g * d;
    }
  };
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    add(i, 0);
    add(i + kLanes, 1);
  }
  if (i + kLanes <= count) {
    add(i, 0);
    i += kLanes;
  }
  s[0] += s[1];
  q[0] += q[1];
  A sum_s = sum_of_lanes<A>(s[0]), sum_q = sum_of_lanes<A>(q[0]), sum_b = 0, sum_c = 0;
  if constexpr (kGrad) {
    b[0] += b[1];
    c[0] += c[1];
    sum_b = sum_of_lanes<A>(b[0]);
    sum_c = sum_of_lanes<A>(c[0]);
  }
  for (; i < count; ++i) {
    const A d = x[i] - shift;
    sum_s += d;
    sum_q += d * d;
    if constexpr (kGrad) {
      sum_b += dy[i];
      sum_c += dy[i] * d;
    }
  }
  return {sum_s, sum_q, sum_b, sum_c};
}

/// Adds the moments of `count` elements to those of the `before` elements seen so far.
inline void merge(const ChannelMoments& from, int64_t count, int64_t before, ChannelMoments& to) {
  if (before == 0) {
    to = from;
    return;
  }
  const double share = static_cast<double>(count) / static_cast<double>(before + count);
  const double delta = from.mean - to.mean;
  const double up = delta * share;
  to.m2 += from.m2 + delta * up * static_cast<double>(before);
  to.cross += from.cross - up * to.sum_dy + (delta - up) * from.sum_dy;
  to.sum_dy += from.sum_dy;
  to.mean += up;
}

template <class A, bool kGrad>
ChannelMoments panel_moments(const A* x, const A* dy, int64_t count) {
  const A shift = mean_of(x, count);
  return moments_of(shift, shifted_sums<A, kGrad>(x, dy, count, shift), count);
}

/// Rows of several panels.
template <class A>
void moments_of_long_rows(const ChannelsTile& tile) {
  A panels[2][kNormRowPanel];
  for (int64_t k = 0; k < tile.num_channels; ++k) {
    const int64_t channel = tile.first_channel + k;
    ChannelMoments moments{};
    for (int64_t begin = 0; begin < tile.x.columns; begin += kNormRowPanel) {
      const int64_t left = tile.x.columns - begin;
      const int64_t count = left < kNormRowPanel ? left : kNormRowPanel;
      const A* const x = run_of(tile.x, channel * tile.x.row_stride + begin, count, panels[0]);
      const A* const dy = run_of(tile.dy, channel * tile.dy.row_stride + begin, count, panels[1]);
      merge(panel_moments<A, true>(x, dy, count), count, begin, moments);
    }
    tile.out[k] = moments;
  }
}

/// Rows of which kNormRowsAtOnce fit a panel.
template <class A>
void moments_of_short_rows(const ChannelsTile& tile) {
  A panels[2][kNormRowPanel], shift[kNormRowsAtOnce];
  const A *x[kNormRowsAtOnce], *dy[kNormRowsAtOnce];
  ShiftedSums<A> sums[kNormRowsAtOnce];
  const int64_t count = tile.x.columns;
  for (int64_t k = 0; k < tile.num_channels; k += kNormRowsAtOnce) {
    const int64_t left = tile.num_channels - k;
    const int64_t rows = left < kNormRowsAtOnce ? left : kNormRowsAtOnce;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t channel = tile.first_channel + k + r;
      x[r] = run_of(tile.x, channel * tile.x.row_stride, count, panels[0] + r * count);
      dy[r] = run_of(tile.dy, channel * tile.dy.row_stride, count, panels[1] + r * count);
    }
    for (int64_t r = 0; r < rows; ++r) shift[r] = mean_of(x[r], count);
    for (int64_t r = 0; r < rows; ++r) sums[r] = shifted_sums<A, true>(x[r], dy[r], count, shift[r]);
    for (int64_t r = 0; r < rows; ++r) tile.out[k + r] = moments_of(shift[r], sums[r], count);
  }
}

/// Each channel's places lie one after another.
template <class A>
void moments_by_rows(const ChannelsTile& tile) {
  const bool is_short = tile.x.columns > 0 && tile.x.columns * kNormRowsAtOnce <= kNormRowPanel;
  (is_short ? moments_of_short_rows<A> : moments_of_long_rows<A>)(tile);
}

/// Each place's channels lie one after another: the sums of neighbouring channels fill a vector.
template <class A>
void moments_by_columns(const ChannelsTile& tile) {
  A panels[2][kNormChannels], shift[kNormChannels], s[kNormChannels], q[kNormChannels], b[kNormChannels],
      c[kNormChannels];
  const int64_t width = tile.num_channels, places = tile.x.columns;
  const auto x_at = [&](int64_t p) {
    return run_of(tile.x, p * tile.x.column_stride + tile.first_channel, width, panels[0]);
  };
  for (int64_t k = 0; k < width; ++k) tile.out[k] = {};
  for (int64_t begin = 0; begin < places; begin += kNormChunkRows) {
    const int64_t end = places - begin < kNormChunkRows ? places : begin + kNormChunkRows;
    // The first places' mean, or that of all places before.
    const int64_t taken = end - begin >= 8 ? 8 : 1;
    for (int64_t k = 0; k < width; ++k) shift[k] = static_cast<A>(tile.out[k].mean);
    for (int64_t p = 0; p < taken && begin == 0; ++p) {
      const A* const x = x_at(p);
      for (int64_t k = 0; k < width; ++k) shift[k] += x[k] / static_cast<A>(taken);
    }
    for (int64_t k = 0; k < width; ++k) s[k] = q[k] = b[k] = c[k] = 0;
    for (int64_t p = begin; p < end; ++p) {
      const A* const x = x_at(p);
      const A* const dy = run_of(tile.dy, p * tile.dy.column_stride + tile.first_channel, width, panels[1]);
#if defined(__GNUC__)
#pragma GCC ivdep
#endif
      for (int64_t k = 0; k < width; ++k) {
        const A d = x[k] - shift[k];
        s[k] += d;
        q[k] += d * d;
        b[k] += dy[k];
        c[k] += dy[k] * d;
      }
    }
    for (int64_t k = 0; k < width; ++k) {
      merge(moments_of<A>(shift[k], {s[k], q[k], b[k], c[k]}, end - begin), end - begin, begin, tile.out[k]);
    }
  }
}

template <class A>
void channel_moments(const ChannelsTile& tile) {
  const bool rows = tile.x.column_stride == 1 && tile.dy.column_stride == 1;
  const bool columns = tile.x.row_stride == 1 && tile.dy.row_stride == 1;
  (columns && (!rows || tile.x.columns == 1) ? moments_by_columns<A> : moments_by_rows<A>)(tile);
}

inline bool either_is_float64(const Matrix& a, const Matrix& b) {
  return a.type == ElementType::float64 || b.type == ElementType::float64;
}

inline void channel_moments_kernel(const ChannelsTile& tile) {
  (either_is_float64(tile.x, tile.dy) ? channel_moments<double> : channel_moments<float>)(tile);
}

/// Mean (0 if not centred) and mean square about it of one row.
template <class A>
ChannelMoments statistics_of(const Matrix& x, int64_t row, bool centred, A* panel) {
  ChannelMoments moments{};
  for (int64_t begin = 0; begin < x.columns; begin += kNormRowPanel) {
    const int64_t left = x.columns - begin;
    const int64_t count = left < kNormRowPanel ? left : kNormRowPanel;
    const A* const from = run_of(x, row * x.row_stride + begin, count, panel);
    if (centred) {
      merge(panel_moments<A, false>(from, nullptr, count), count, begin, moments);
    } else {
      moments.m2 += shifted_sums<A, false>(from, nullptr, count, 0).q;
    }
  }
  moments.m2 /= static_cast<double>(x.columns);
  return moments;
}

/// In two parts, so that a large mean loses no digits: x - high is exact where it cancels.
template <class A>
void add_row(const A* __restrict x, const A* __restrict dy, int64_t count, double mean, double scale,
             A* __restrict weight, A* __restrict bias) {
  const A high = static_cast<A>(mean), low = static_cast<A>(mean - high), by = static_cast<A>(scale);
  for (int64_t j = 0; j < count; ++j) {
    weight[j] += dy[j] * (((x[j] - high) - low) * by);
    bias[j] += dy[j];
  }
}

template <class A>
void add_rows(const NormRowsTile& tile) {
  A panels[2][kNormRowPanel];
  const int64_t columns = tile.x.columns;
  A* const weight = static_cast<A*>(tile.scratch);
  A* const bias = weight + columns;
  for (int64_t first = 0; first < tile.x.rows; first += kNormChunkRows) {
    const int64_t end = tile.x.rows - first < kNormChunkRows ? tile.x.rows : first + kNormChunkRows;
    for (int64_t j = 0; j < 2 * columns; ++j) weight[j] = 0;
    for (int64_t row = first; row < end; ++row) {
      const ChannelMoments of_row = statistics_of(tile.x, row, tile.centred, panels[0]);
      const double scale = 1 / tile.square_root(of_row.m2 + tile.eps);
      for (int64_t begin = 0; begin < columns; begin += kNormRowPanel) {
        const int64_t left = columns - begin;
        const int64_t count = left < kNormRowPanel ? left : kNormRowPanel;
        add_row(run_of(tile.x, row * tile.x.row_stride + begin, count, panels[0]),
                run_of(tile.dy, row * tile.dy.row_stride + begin, count, panels[1]), count, of_row.mean, scale,
                weight + begin, bias + begin);
      }
    }
    for (int64_t j = 0; j < columns; ++j) {
      tile.weight[j] += weight[j];
      tile.bias[j] += bias[j];
    }
  }
}

inline void norm_rows_kernel(const NormRowsTile& tile) {
  (either_is_float64(tile.x, tile.dy) ? add_rows<double> : add_rows<float>)(tile);
}

}  // namespace
}  // namespace imbdyn
