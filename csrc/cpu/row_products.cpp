#include "cpu/row_products.h"

#include <algorithm>
#include <memory>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// Rows of a block: two blocks of so many rows of 1024 float32 stay in a core's second-level cache, and tiles of 4 x 3
// fit in. Few rows are cut finer, so that there is work for all threads.
constexpr int64_t kBlockRows = 48;
constexpr int64_t kBlockRowsOfFew = 24;
constexpr int64_t kFewRows = 512;
// Multiply-adds below which waking a thread costs more than it saves.
constexpr int64_t kProductsPerThread = 400'000;
// Shortest part of long rows that one task takes.
constexpr int64_t kShortestSegment = 4096;

struct Pair {
  int64_t first;
  int64_t second;
};

/// The blocks on and above the diagonal.
std::vector<Pair> upper_pairs(int64_t blocks) {
  std::vector<Pair> pairs;
  for (int64_t i = 0; i < blocks; ++i) {
    for (int64_t j = i; j < blocks; ++j) pairs.push_back({i, j});
  }
  return pairs;
}

int useful_threads(int threads, int64_t multiply_adds) {
  return static_cast<int>(std::min<int64_t>(threads, 1 + multiply_adds / kProductsPerThread));
}

int real_type(ElementType type) { return type == ElementType::float64 ? 0 : 1; }

int64_t bytes_of_real(ElementType type) { return type == ElementType::float64 ? 8 : 4; }

/// Rows of a matrix as the kernels read them: where they lie if they can be, else converted into `copy`.
void find_rows(const Matrix& matrix, const int64_t* order, int64_t count, char* copy, const void** rows) {
  const bool real = matrix.type == ElementType::float64 || matrix.type == ElementType::float32;
  const int64_t bytes = bytes_of_real(matrix.type);
  if (real && (matrix.column_stride == 1 || matrix.columns == 1)) {
    for (int64_t i = 0; i < count; ++i) {
      rows[i] = static_cast<const char*>(matrix.data) + order[i] * matrix.row_stride * bytes;
    }
    return;
  }
  const int64_t to = 0;
  for (int64_t i = 0; i < count; ++i) {
    char* const row = copy + i * matrix.columns * bytes;
    const int64_t from = order[i] * matrix.row_stride;
    kernels().copy_lines[static_cast<int>(matrix.type)](
        {matrix.data, 1, 0, &from, 1, matrix.columns, matrix.column_stride, row, 0, &to});
    rows[i] = row;
  }
}

/// The inner products of two blocks of rows, of the inputs and of the output gradients.
struct BlockDots {
  double inputs[kBlockRows * kBlockRows];
  double grads[kBlockRows * kBlockRows];
  std::vector<char> copy;

  void compute(const Matrix& matrix, const int64_t* a, int64_t a_rows, const int64_t* b, int64_t b_rows, double* out) {
    const void* rows[2][kBlockRows];
    const int64_t bytes = matrix.columns * bytes_of_real(matrix.type);
    copy.resize(static_cast<size_t>((a_rows + b_rows) * bytes));
    find_rows(matrix, a, a_rows, copy.data(), rows[0]);
    if (a != b) find_rows(matrix, b, b_rows, copy.data() + a_rows * bytes, rows[1]);
    std::fill(out, out + a_rows * kBlockRows, 0.0);
    kernels().row_dots[real_type(matrix.type)](
        {rows[0], a_rows, a == b ? rows[0] : rows[1], b_rows, matrix.columns, a == b, out, kBlockRows});
  }
};

/// Runs of neighbouring rows of one class in a block.
struct Run {
  int64_t class_index;
  int64_t begin;
  int64_t end;
};

std::vector<std::vector<Run>> runs_by_block(const std::vector<int64_t>& class_index, int64_t block_rows) {
  const int64_t rows = static_cast<int64_t>(class_index.size());
  std::vector<std::vector<Run>> runs;
  for (int64_t begin = 0; begin < rows; begin += block_rows) {
    runs.emplace_back();
    for (int64_t r = begin; r < std::min(begin + block_rows, rows); ++r) {
      const int64_t c = class_index[static_cast<size_t>(r)];
      if (runs.back().empty() || runs.back().back().class_index != c) runs.back().push_back({c, r - begin, r - begin});
      runs.back().back().end = r - begin + 1;
    }
  }
  return runs;
}

/// What one pair of blocks adds: sums by pairs of runs, and the norms of the first block's classes.
struct PairResult {
  std::vector<double> weight, bias;
  std::vector<double> weight_norms, bias_norms;  // by runs of the first block
};

}  // namespace

template <class T>
void add_row_products(const T* rows, int64_t pitch, int64_t count, int64_t length, double* gram, int threads) {
  const int64_t blocks = (count + kBlockRows - 1) / kBlockRows;
  const std::vector<Pair> pairs = upper_pairs(blocks);
  const int64_t num_pairs = static_cast<int64_t>(pairs.size());
  threads = useful_threads(threads, count * (count + 1) / 2 * length);
  const int64_t wanted = threads == 1 ? 1 : (4 * threads + num_pairs - 1) / num_pairs;
  const int64_t segments = std::max<int64_t>(1, std::min(wanted, length / kShortestSegment));
  std::vector<const void*> row(static_cast<size_t>(count * segments));
  for (int64_t s = 0; s < segments; ++s) {
    for (int64_t i = 0; i < count; ++i)
      row[static_cast<size_t>(s * count + i)] = rows + i * pitch + length * s / segments;
  }
  const int64_t side = std::min(count, kBlockRows);
  const auto kernel = kernels().row_dots[sizeof(T) == sizeof(double) ? 0 : 1];
  // The pairs of a group have results of their own, so that the order of the sums is fixed.
  constexpr int64_t kGroup = 256;
  std::vector<double> dots;
  for (int64_t done = 0; done < num_pairs; done += kGroup) {
    const int64_t group = std::min(kGroup, num_pairs - done);
    dots.assign(static_cast<size_t>(group * segments * side * side), 0.0);
    parallel_for(threads, group * segments, [&](int64_t task, int) {
      const Pair& pair = pairs[static_cast<size_t>(done + task / segments)];
      const int64_t s = task % segments;
      const void* const* const row_s = row.data() + s * count;
      const int64_t a = pair.first * kBlockRows, b = pair.second * kBlockRows;
      kernel({row_s + a, std::min(kBlockRows, count - a), row_s + b, std::min(kBlockRows, count - b),
              length * (s + 1) / segments - length * s / segments, a == b, dots.data() + task * side * side, side});
    });
    for (int64_t task = 0; task < group * segments; ++task) {
      const Pair& pair = pairs[static_cast<size_t>(done + task / segments)];
      const int64_t a = pair.first * kBlockRows, b = pair.second * kBlockRows;
      const double* const dot = dots.data() + task * side * side;
      for (int64_t i = 0; i < std::min(kBlockRows, count - a); ++i) {
        for (int64_t j = a == b ? i : 0; j < std::min(kBlockRows, count - b); ++j) {
          gram[(a + i) * count + b + j] += dot[i * side + j];
          if (a + i != b + j) gram[(b + j) * count + a + i] += dot[i * side + j];
        }
      }
    }
  }
}

template void add_row_products<float>(const float*, int64_t, int64_t, int64_t, double*, int);
template void add_row_products<double>(const double*, int64_t, int64_t, int64_t, double*, int);

void add_pairs_of_rows(const PairedRows& rows, const PairSums& weight, const PairSums& bias, int threads) {
  const int64_t block_rows = rows.rows <= kFewRows ? kBlockRowsOfFew : kBlockRows;
  const int64_t blocks = (rows.rows + block_rows - 1) / block_rows;
  const std::vector<std::vector<Run>> runs = runs_by_block(rows.class_index, block_rows);
  const std::vector<Pair> pairs = upper_pairs(blocks);
  const int64_t num_pairs = static_cast<int64_t>(pairs.size());
  threads = useful_threads(threads, rows.rows * rows.rows / 2 * (rows.inputs.columns + rows.grad_outputs.columns));

  std::unique_ptr<BlockDots[]> scratch(new BlockDots[static_cast<size_t>(std::min<int64_t>(threads, num_pairs))]);
  const auto compute = [&](const Pair& pair, BlockDots& dots, PairResult& result) {
    const int64_t a = pair.first * block_rows, b = pair.second * block_rows;
    const int64_t a_rows = std::min(block_rows, rows.rows - a), b_rows = std::min(block_rows, rows.rows - b);
    dots.compute(rows.inputs, rows.order + a, a_rows, rows.order + b, b_rows, dots.inputs);
    dots.compute(rows.grad_outputs, rows.order + a, a_rows, rows.order + b, b_rows, dots.grads);
    const std::vector<Run>& a_runs = runs[static_cast<size_t>(pair.first)];
    const std::vector<Run>& b_runs = runs[static_cast<size_t>(pair.second)];
    result.weight.assign(a_runs.size() * b_runs.size(), 0.0);
    result.bias.assign(result.weight.size(), 0.0);
    result.weight_norms.assign(a_runs.size(), 0.0);
    result.bias_norms.assign(a_runs.size(), 0.0);
    const int64_t* const a_unit = rows.unit.data() + a;
    const int64_t* const b_unit = rows.unit.data() + b;
    for (size_t p = 0; p < a_runs.size(); ++p) {
      for (int64_t i = a_runs[p].begin; i < a_runs[p].end; ++i) {
        double* const k = dots.inputs + i * kBlockRows;
        const double* const d = dots.grads + i * kBlockRows;
        // Of a block with itself each pair is there once, and a row with itself is half a pair.
        const bool diagonal = a == b;
        const int64_t from = diagonal ? i : 0;
        for (int64_t j = from; j < b_rows; ++j) k[j] *= d[j];
        const auto fold = [&](const double* value, std::vector<double>& sums, std::vector<double>& norms) {
          for (size_t q = 0; q < b_runs.size(); ++q) {
            double sum = diagonal && q == p ? 0.5 * value[i] : 0;
            for (int64_t j = std::max(diagonal ? i + 1 : 0, b_runs[q].begin); j < b_runs[q].end; ++j) sum += value[j];
            sums[p * b_runs.size() + q] += sum;
          }
          for (int64_t j = from; j < b_rows && b_unit[j] <= a_unit[i]; ++j) {
            if (b_unit[j] == a_unit[i]) norms[p] += (diagonal && j == i ? 1 : 2) * value[j];
          }
        };
        fold(k, result.weight, result.weight_norms);
        if (bias.gram != nullptr) fold(d, result.bias, result.bias_norms);
      }
    }
  };
  const auto add = [&](const Pair& pair, const std::vector<double>& part, const std::vector<double>& norm_part,
                       const PairSums& to) {
    if (to.gram == nullptr) return;
    const std::vector<Run>& a_runs = runs[static_cast<size_t>(pair.first)];
    const std::vector<Run>& b_runs = runs[static_cast<size_t>(pair.second)];
    for (size_t p = 0; p < a_runs.size(); ++p) {
      const int64_t a = a_runs[p].class_index;
      for (size_t q = 0; q < b_runs.size(); ++q) {
        const int64_t b = b_runs[q].class_index;
        // Each pair of rows stands for two, (r, s) and (s, r).
        to.gram[a * rows.classes + b] += part[p * b_runs.size() + q];
        to.gram[b * rows.classes + a] += part[p * b_runs.size() + q];
      }
      if (to.norms != nullptr) to.norms[a] += norm_part[p];
    }
  };

  // Results of a group of pairs are added in their order, so that they do not depend on the threads.
  constexpr int64_t kGroup = 1024;
  std::vector<PairResult> results(static_cast<size_t>(std::min(kGroup, num_pairs)));
  for (int64_t done = 0; done < num_pairs; done += kGroup) {
    const int64_t group = std::min(kGroup, num_pairs - done);
    parallel_for(threads, group, [&](int64_t task, int slot) {
      compute(pairs[static_cast<size_t>(done + task)], scratch[static_cast<size_t>(slot)],
              results[static_cast<size_t>(task)]);
    });
    for (int64_t task = 0; task < group; ++task) {
      const Pair& pair = pairs[static_cast<size_t>(done + task)];
      const PairResult& result = results[static_cast<size_t>(task)];
      add(pair, result.weight, result.weight_norms, weight);
      add(pair, result.bias, result.bias_norms, bias);
    }
  }
}

void add_pairs_within_samples(const PairedRows& rows, double* weight_norms, double* bias_norms, int threads) {
  threads = useful_threads(threads, rows.rows * (rows.inputs.columns + rows.grad_outputs.columns) * 4);
  // Where each sample's rows begin; a task takes some samples, block by block where one has many rows.
  std::vector<int64_t> begins;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const bool starts = r == 0 || rows.unit[static_cast<size_t>(r)] != rows.unit[static_cast<size_t>(r - 1)];
    if (starts) begins.push_back(r);
  }
  const int64_t units = static_cast<int64_t>(begins.size());
  begins.push_back(rows.rows);
  constexpr int64_t kUnitsOfTask = 64;
  const int64_t tasks = (units + kUnitsOfTask - 1) / kUnitsOfTask;
  std::vector<double> weight(static_cast<size_t>(units), 0.0), bias(static_cast<size_t>(units), 0.0);
  std::unique_ptr<BlockDots[]> scratch(new BlockDots[static_cast<size_t>(std::min<int64_t>(threads, tasks))]);
  parallel_for(threads, tasks, [&](int64_t task, int slot) {
    BlockDots& dots = scratch[static_cast<size_t>(slot)];
    for (int64_t u = task * kUnitsOfTask; u < std::min(units, (task + 1) * kUnitsOfTask); ++u) {
      const int64_t begin = begins[static_cast<size_t>(u)], end = begins[static_cast<size_t>(u + 1)];
      for (int64_t a = begin; a < end; a += kBlockRows) {
        for (int64_t b = a; b < end; b += kBlockRows) {
          const int64_t a_rows = std::min(kBlockRows, end - a), b_rows = std::min(kBlockRows, end - b);
          dots.compute(rows.inputs, rows.order + a, a_rows, rows.order + b, b_rows, dots.inputs);
          dots.compute(rows.grad_outputs, rows.order + a, a_rows, rows.order + b, b_rows, dots.grads);
          for (int64_t i = 0; i < a_rows; ++i) {
            for (int64_t j = a == b ? i : 0; j < b_rows; ++j) {
              const double d = (a + i == b + j ? 1 : 2) * dots.grads[i * kBlockRows + j];
              bias[static_cast<size_t>(u)] += d;
              weight[static_cast<size_t>(u)] += d * dots.inputs[i * kBlockRows + j];
            }
          }
        }
      }
    }
  });
  for (int64_t u = 0; u < units; ++u) {
    const int64_t c = rows.class_index[static_cast<size_t>(begins[static_cast<size_t>(u)])];
    weight_norms[c] += weight[static_cast<size_t>(u)];
    if (bias_norms != nullptr) bias_norms[c] += bias[static_cast<size_t>(u)];
  }
}

}  // namespace imbdyn
