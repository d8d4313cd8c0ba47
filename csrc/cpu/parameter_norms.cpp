#include "cpu/parameter_norms.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"

namespace imbdyn {
namespace {

// Most elements that have sums of their own, so that the order of the sums does not follow the thread number; and
// fewest that one task takes: a thread woken for less costs more than it saves.
constexpr int64_t kChunkElements = 32768;

/// Consecutive elements of one parameter, of one row where rows are measured.
struct Chunk {
  int64_t parameter;
  int64_t begin;
  int64_t count;
  NormSums sums;
};

void cut(int64_t parameter, int64_t begin, int64_t count, std::vector<Chunk>& chunks) {
  for (int64_t done = 0; done < count; done += kChunkElements) {
    chunks.push_back({parameter, begin + done, std::min(kChunkElements, count - done), {}});
  }
}

std::vector<Chunk> cut(const std::vector<Parameter>& parameters, const MeasuredRows& measured) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const int64_t index = static_cast<int64_t>(i);
    const int64_t rows = index == measured.parameter ? measured.rows : 1;
    const int64_t columns = rows == 0 ? 0 : parameters[i].count / rows;
    for (int64_t row = 0; row < rows; ++row) cut(index, row * columns, columns, chunks);
  }
  return chunks;
}

/// The first chunk of each task, and the end: runs of chunks with kChunkElements or more together, so that many small
/// tensors are one task.
std::vector<size_t> group(const std::vector<Chunk>& chunks) {
  std::vector<size_t> first{0};
  int64_t elements = 0;
  for (size_t k = 0; k < chunks.size(); ++k) {
    elements += chunks[k].count;
    if (elements < kChunkElements && k + 1 < chunks.size()) continue;
    first.push_back(k + 1);
    elements = 0;
  }
  return first;
}

void add(const NormSums& from, NormSums& to) {
  to.weight += from.weight;
  to.grad += from.grad;
  to.update += from.update;
  to.weight_update += from.weight_update;
}

/// The four numbers of one tensor or row.
void store(const NormSums& sums, const Parameter& p, double* out) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  out[0] = std::sqrt(sums.weight);
  out[1] = p.grad.given ? std::sqrt(sums.grad) : nan;
  out[2] = p.previous.given ? std::sqrt(sums.update) : nan;
  out[3] = p.previous.given ? sums.weight_update : nan;
}

}  // namespace

void parameter_norms(const std::vector<Parameter>& parameters, const MeasuredRows& measured, double* out, int threads) {
  std::vector<Chunk> chunks = cut(parameters, measured);
  const std::vector<size_t> first = group(chunks);
  const auto kernel = kernels().parameter_norms;
  parallel_for(threads, static_cast<int64_t>(first.size()) - 1, [&](int64_t task, int) {
    const size_t t = static_cast<size_t>(task);
    for (size_t k = first[t]; k < first[t + 1]; ++k) {
      Chunk& chunk = chunks[k];
      kernel({parameters[static_cast<size_t>(chunk.parameter)], chunk.begin, chunk.count, &chunk.sums});
    }
  });

  std::vector<NormSums> tensors(parameters.size());
  std::vector<NormSums> rows(static_cast<size_t>(measured.rows));
  for (const Chunk& chunk : chunks) {
    const size_t i = static_cast<size_t>(chunk.parameter);
    add(chunk.sums, tensors[i]);
    if (chunk.parameter != measured.parameter) continue;
    const int64_t columns = parameters[i].count / measured.rows;
    add(chunk.sums, rows[static_cast<size_t>(chunk.begin / columns)]);
  }
  for (size_t i = 0; i < tensors.size(); ++i) store(tensors[i], parameters[i], out + 4 * i);
  for (size_t k = 0; k < rows.size(); ++k) {
    store(rows[k], parameters[static_cast<size_t>(measured.parameter)], measured.out + 4 * k);
  }
}

}  // namespace imbdyn
