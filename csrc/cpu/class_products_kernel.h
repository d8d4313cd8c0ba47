// T[m][n] = sum over places p of S[m][p] V[p][n]: the part of a weight gradient that some places (rows, tokens, pixels)
// give, a tile at a time in registers. There it is also squared for the sample's norm and added to its class's sum.
//
// V, the vector operand, lies in panels [p][lanes] of neighbouring columns; S is read one number at a time (of a
// convolution: the padded input, where each tap of the kernel is only another offset, so that nothing is unfolded).
// A tile of 6 rows by 2 vectors takes 8 loads for 12 multiply-adds, and 15 of 16 registers.
// Internal linkage: see common/elements.h.
#pragma once

#include "common/elements.h"
#include "cpu/kernels.h"
#include "cpu/vectors.h"

namespace imbdyn {
namespace {

/// How a place multiplies a vector: by one number of S or, where every column has its own (depthwise), by a vector.
template <bool kElementwise, class T, int V>
inline void multiply_add(const T* s, const Vector<T> (&v)[V], Vector<T> (&acc)[V]) {
  if constexpr (kElementwise) {
    for (int n = 0; n < V; ++n) acc[n] += v[n] * load(s + n * kVectorLanes<T>);
  } else {
    const T number = *s;
    for (int n = 0; n < V; ++n) acc[n] += v[n] * number;
  }
}

/// One tile: M rows of S by the V vectors of a panel. Adds its squares to `squares`, by lanes.
template <bool kElementwise, class T, int M, int V>
void product_tile(const ProductsChunk& chunk, const ProductBlock& block, int64_t first_row, double* squares) {
  // Where S lies in panels, offsets count panel rows.
  constexpr int64_t kScale = kElementwise ? V * kVectorLanes<T> : 1;
  const T* row[M];
  for (int m = 0; m < M; ++m) {
    row[m] = static_cast<const T*>(chunk.scalars) + block.scalars + chunk.row_offset[first_row + m] * kScale;
  }
  Vector<T> acc[M][V];
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < V; ++n) acc[m][n] = Vector<T>{};
  }
  const T* panel = static_cast<const T*>(chunk.panels) + block.panel;
  const int64_t width = chunk.width, step = chunk.step * kScale;
  for (int64_t line = 0; line < chunk.lines; ++line) {
    int64_t at = chunk.line_offset[line] * kScale;
    for (int64_t x = 0; x < width; ++x) {
      Vector<T> v[V];
      for (int n = 0; n < V; ++n) v[n] = load(panel + n * kVectorLanes<T>);
      for (int m = 0; m < M; ++m) multiply_add<kElementwise>(row[m] + at, v, acc[m]);
      panel += V * kVectorLanes<T>;
      at += step;
    }
  }

  const int64_t out = block.out + first_row * block.width;
  T* const partial = static_cast<T*>(chunk.partial) + (chunk.partial == nullptr ? 0 : out);
  T* const sum = static_cast<T*>(chunk.sum) + out;
  if (block.width == V * kVectorLanes<T>) {
    constexpr int64_t kWidth = V * kVectorLanes<T>;
    if (!chunk.first) {
      for (int m = 0; m < M; ++m) {
        for (int n = 0; n < V; ++n) acc[m][n] += load(partial + m * kWidth + n * kVectorLanes<T>);
      }
    }
    if (!chunk.last) {
      for (int m = 0; m < M; ++m) {
        for (int n = 0; n < V; ++n) store<T>(acc[m][n], partial + m * kWidth + n * kVectorLanes<T>);
      }
      return;
    }
    if (chunk.squares != nullptr) {
      Vector<T> sum_of_squares[V];
      for (int n = 0; n < V; ++n) sum_of_squares[n] = acc[0][n] * acc[0][n];
      for (int m = 1; m < M; ++m) {
        for (int n = 0; n < V; ++n) sum_of_squares[n] += acc[m][n] * acc[m][n];
      }
      for (int n = 1; n < V; ++n) sum_of_squares[0] += sum_of_squares[n];
      T lanes[kVectorLanes<T>];
      store<T>(sum_of_squares[0], lanes);
      for (int i = 0; i < kVectorLanes<T>; ++i) squares[i] += static_cast<double>(lanes[i]);
    }
    if (!chunk.fresh) {
      for (int m = 0; m < M; ++m) {
        for (int n = 0; n < V; ++n) acc[m][n] += load(sum + m * kWidth + n * kVectorLanes<T>);
      }
    }
    for (int m = 0; m < M; ++m) {
      for (int n = 0; n < V; ++n) store<T>(acc[m][n], sum + m * kWidth + n * kVectorLanes<T>);
    }
    return;
  }

  // The columns beyond the last one hold 0 times S, which is NaN where S is infinite: they are left out.
  T tile[M][V * kVectorLanes<T>];
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < V; ++n) store<T>(acc[m][n], &tile[m][n * kVectorLanes<T>]);
  }
  double sum_of_squares = 0;
  for (int m = 0; m < M; ++m) {
    T* const to_partial = partial + m * block.width;
    T* const to_sum = sum + m * block.width;
    for (int64_t n = 0; n < block.width; ++n) {
      T t = tile[m][n];
      if (!chunk.first) t += to_partial[n];
      if (!chunk.last) {
        to_partial[n] = t;
        continue;
      }
      sum_of_squares += static_cast<double>(t) * static_cast<double>(t);
      to_sum[n] = chunk.fresh ? t : to_sum[n] + t;
    }
  }
  if (chunk.last) squares[0] += sum_of_squares;
}

template <bool kElementwise, class T, int V>
void product_rows(const ProductsChunk& chunk, const ProductBlock& block, int64_t row, int64_t count, double* squares) {
  switch (count) {
    case 1: return product_tile<kElementwise, T, 1, V>(chunk, block, row, squares);
    case 2: return product_tile<kElementwise, T, 2, V>(chunk, block, row, squares);
    case 3: return product_tile<kElementwise, T, 3, V>(chunk, block, row, squares);
    case 4: return product_tile<kElementwise, T, 4, V>(chunk, block, row, squares);
    case 5: return product_tile<kElementwise, T, 5, V>(chunk, block, row, squares);
    default: return product_tile<kElementwise, T, 6, V>(chunk, block, row, squares);
  }
}

template <bool kElementwise, class T>
void class_products_kernel(const ProductsChunk& chunk) {
  // Tiles of nearly one height: 16 rows are 6 + 5 + 5.
  const int64_t tiles = (chunk.rows + kProductRows - 1) / kProductRows;
  double squares[kVectorLanes<T>] = {};
  for (int64_t b = 0; b < chunk.num_blocks; ++b) {
    const ProductBlock& block = chunk.blocks[b];
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = chunk.first_row + chunk.rows * tile / tiles;
      const int64_t count = chunk.first_row + chunk.rows * (tile + 1) / tiles - row;
      if (block.lanes == 2 * kVectorLanes<T>) {
        product_rows<kElementwise, T, 2>(chunk, block, row, count, squares);
      } else {
        product_rows<kElementwise, T, 1>(chunk, block, row, count, squares);
      }
    }
  }
  if (chunk.squares == nullptr) return;
  for (double sum : squares) *chunk.squares += sum;
}

/// Products of float32 or float64 that are summed before float64 takes over: the rows of a block stay in the cache.
constexpr int64_t kDotsLength = 1024;
/// Rows of b that stay in the first-level cache while rows of a pass by.
constexpr int64_t kDotsRows = 6;

/// out[i][j] += sum of a[i][k] b[j][k] over `length` k from `begin` on, for M x N pairs of rows.
template <class T, int M, int N>
void dots_tile(const DotsBlock& block, int64_t begin, int64_t length, int64_t i, int64_t j) {
  const T* a[M];
  const T* b[N];
  for (int m = 0; m < M; ++m) a[m] = static_cast<const T*>(block.a[i + m]) + begin;
  for (int n = 0; n < N; ++n) b[n] = static_cast<const T*>(block.b[j + n]) + begin;
  Vector<T> acc[M][N];
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) acc[m][n] = Vector<T>{};
  }
  int64_t k = 0;
  for (; k + kVectorLanes<T> <= length; k += kVectorLanes<T>) {
    Vector<T> vb[N];
    for (int n = 0; n < N; ++n) vb[n] = load(b[n] + k);
    for (int m = 0; m < M; ++m) {
      const Vector<T> va = load(a[m] + k);
      for (int n = 0; n < N; ++n) acc[m][n] += va * vb[n];
    }
  }
  for (int m = 0; m < M; ++m) {
    for (int n = 0; n < N; ++n) {
      T dot = sum_of_lanes<T>(acc[m][n]);
      for (int64_t tail = k; tail < length; ++tail) dot += a[m][tail] * b[n][tail];
      block.out[(i + m) * block.pitch + j + n] += static_cast<double>(dot);
    }
  }
}

template <class T, int M>
void dots_rows(const DotsBlock& block, int64_t begin, int64_t length, int64_t i, int64_t first_j, int64_t end_j) {
  int64_t j = first_j;
  for (; j + 3 <= end_j; j += 3) dots_tile<T, M, 3>(block, begin, length, i, j);
  for (; j < end_j; ++j) dots_tile<T, M, 1>(block, begin, length, i, j);
}

template <class T>
void row_dots_kernel(const DotsBlock& block) {
  for (int64_t begin = 0; begin < block.length; begin += kDotsLength) {
    const int64_t length = block.length - begin < kDotsLength ? block.length - begin : kDotsLength;
    for (int64_t j = 0; j < block.b_rows; j += kDotsRows) {
      const int64_t end_j = block.b_rows - j < kDotsRows ? block.b_rows : j + kDotsRows;
      const int64_t end_i = block.upper && end_j < block.a_rows ? end_j : block.a_rows;
      int64_t i = 0;
      for (; i + 4 <= end_i; i += 4) dots_rows<T, 4>(block, begin, length, i, j, end_j);
      for (; i < end_i; ++i) dots_rows<T, 1>(block, begin, length, i, j, end_j);
    }
  }
}

/// Four rows of four neighbours become four columns.
inline void transpose_4x4(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
  typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
  Four r[4];
  for (int i = 0; i < 4; ++i) r[i] = *reinterpret_cast<const Four*>(from + i * from_stride);
  const Four ab_low = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5);
  const Four ab_high = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const Four cd_low = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
  const Four cd_high = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  const Four c[4] = {
      __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5), __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
      __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5), __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)};
  for (int i = 0; i < 4; ++i) *reinterpret_cast<Four*>(to + i * to_stride) = c[i];
  return;
#endif
#endif
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) to[j * to_stride + i] = from[i * from_stride + j];
  }
}

template <class From, class To>
inline void transpose_4x4(const From* from, int64_t from_stride, To* to, int64_t to_stride) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) to[j * to_stride + i] = to_real(from[i * from_stride + j]);
  }
}

/// to[x][lane] = from[lane][x] for a line of places and the columns of one panel, 0 in the lanes beyond the last
/// column.
template <class T>
void pack_line(const PackedLines& job, const T* from, Real<T>* __restrict to) {
  const int64_t lanes = job.lanes, columns = job.columns, width = job.width;
  int64_t first_lane = 0;
  if (job.column_stride == 1 && columns == 2 * kVectorLanes<Real<T>>) {
    for (int64_t x = 0; x < width; ++x) {
      for (int c = 0; c < 2 * kVectorLanes<Real<T>>; ++c) to[x * lanes + c] = to_real(from[x * job.place_stride + c]);
    }
    first_lane = columns;
  } else if (job.column_stride == 1) {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t c = 0; c < columns; ++c) to[x * lanes + c] = to_real(from[x * job.place_stride + c]);
    }
    first_lane = columns;
  } else if (job.place_stride == 1) {
    for (; first_lane + 4 <= columns; first_lane += 4) {
      const T* const rows = from + first_lane * job.column_stride;
      int64_t x = 0;
      for (; x + 4 <= width; x += 4) {
        transpose_4x4(rows + x, job.column_stride, to + x * lanes + first_lane, lanes);
      }
      for (; x < width; ++x) {
        for (int64_t c = 0; c < 4; ++c) to[x * lanes + first_lane + c] = to_real(rows[c * job.column_stride + x]);
      }
    }
  }
  for (int64_t c = first_lane; c < columns; ++c) {
    const T* const row = from + c * job.column_stride;
    for (int64_t x = 0; x < width; ++x) to[x * lanes + c] = to_real(row[x * job.place_stride]);
  }
  for (int64_t c = columns; c < lanes; ++c) {
    for (int64_t x = 0; x < width; ++x) to[x * lanes + c] = 0;
  }
}

template <class T>
void pack_lines_kernel(const PackedLines& job) {
  for (int64_t l = 0; l < job.lines; ++l) {
    pack_line(job, static_cast<const T*>(job.from) + job.from_offset[l],
              static_cast<Real<T>*>(job.to) + job.to_offset[l]);
  }
}

/// to[outer][line][i] = from[outer][line][i]
template <class T>
void copy_lines_kernel(const CopiedLines& job) {
  for (int64_t o = 0; o < job.outer; ++o) {
    for (int64_t l = 0; l < job.lines; ++l) {
      const T* const from = static_cast<const T*>(job.from) + o * job.from_outer + job.from_offset[l];
      Real<T>* __restrict to = static_cast<Real<T>*>(job.to) + o * job.to_outer + job.to_offset[l];
      if (job.from_stride == 1 && job.width == 2 * kVectorLanes<Real<T>>) {
        for (int i = 0; i < 2 * kVectorLanes<Real<T>>; ++i) to[i] = to_real(from[i]);
      } else if (job.from_stride == 1) {
        for (int64_t i = 0; i < job.width; ++i) to[i] = to_real(from[i]);
      } else {
        for (int64_t i = 0; i < job.width; ++i) to[i] = to_real(from[i * job.from_stride]);
      }
    }
  }
}

}  // namespace
}  // namespace imbdyn
