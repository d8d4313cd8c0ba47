#include "cpu/norm_gradients.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/thread_pool.h"
#include "cpu/dispatch.h"

namespace imbdyn {
namespace {

// Bytes of x and dy below which waking a thread costs more than it saves.
constexpr int64_t kBytesPerThread = 256 * 1024;

int64_t bytes_of(ElementType type) { return type == ElementType::float64 ? 8 : type == ElementType::float32 ? 4 : 2; }

int worth(int threads, const UnitMatrices& x, const UnitMatrices& dy, int64_t units) {
  const int64_t bytes = units * x.first.rows * x.first.columns * (bytes_of(x.first.type) + bytes_of(dy.first.type));
  return static_cast<int>(std::min<int64_t>(threads, 1 + bytes / kBytesPerThread));
}

Matrix unit_of(const UnitMatrices& all, int64_t unit) {
  Matrix m = all.first;
  m.data = static_cast<const char*>(m.data) + unit * all.stride * bytes_of(m.type);
  return m;
}

bool in_float64(const UnitMatrices& x, const UnitMatrices& dy) {
  return x.first.type == ElementType::float64 || dy.first.type == ElementType::float64;
}

double square_root(double x) { return std::sqrt(x); }

/// One mean and 1 / standard deviation for each channel of a unit, or for each of a set of channels and units.
class Scales {
 public:
  Scales(const std::vector<ChannelMoments>& moments, int64_t units, int64_t channels, int64_t places,
         const ChannelStatistics& s)
      : per_group_(channels / s.num_groups), sets_per_unit_(s.across_units ? 0 : s.num_groups) {
    if (s.mean != nullptr) {
      per_group_ = 1;
      sets_per_unit_ = 0;
      mean_.assign(s.mean, s.mean + channels);
      scale_.assign(s.variance, s.variance + channels);
    } else {
      // All channels have equally many places: the mean is that of the means.
      const size_t sets = static_cast<size_t>(s.num_groups * (s.across_units ? 1 : units));
      const double count = static_cast<double>(per_group_ * (s.across_units ? units : 1));
      mean_.assign(sets, 0);
      scale_.assign(sets, 0);
      for_each(units, channels, [&](size_t i, size_t set) { mean_[set] += moments[i].mean; });
      for (double& mean : mean_) mean /= count;
      for_each(units, channels, [&](size_t i, size_t set) {
        const double d = moments[i].mean - mean_[set];
        scale_[set] += moments[i].m2 + static_cast<double>(places) * d * d;
      });
      for (double& m2 : scale_) m2 /= count * static_cast<double>(std::max<int64_t>(places, 1));
    }
    for (double& variance : scale_) variance = 1 / std::sqrt(variance + s.eps);
  }

  template <class Out>
  void store(const std::vector<ChannelMoments>& moments, int64_t units, int64_t channels, const NormGradients& out) {
    Out* const weight = static_cast<Out*>(out.weight);
    Out* const bias = static_cast<Out*>(out.bias);
    for_each(units, channels, [&](size_t i, size_t set) {
      const ChannelMoments& m = moments[i];
      weight[i] = static_cast<Out>((m.cross + (m.mean - mean_[set]) * m.sum_dy) * scale_[set]);
      bias[i] = static_cast<Out>(m.sum_dy);
    });
  }

 private:
  template <class Body>
  void for_each(int64_t units, int64_t channels, Body&& body) const {
    size_t i = 0;
    for (int64_t unit = 0; unit < units; ++unit) {
      for (int64_t channel = 0, set = unit * sets_per_unit_; channel < channels; ++set) {
        for (const int64_t end = channel + per_group_; channel < end; ++channel) body(i++, static_cast<size_t>(set));
      }
    }
  }

  int64_t per_group_;
  int64_t sets_per_unit_;
  std::vector<double> mean_;
  std::vector<double> scale_;
};

template <class Out>
void rows(const UnitMatrices& x, const UnitMatrices& dy, int64_t units, bool centred, double eps,
          const NormGradients& out, int threads) {
  const int64_t columns = x.first.columns;
  threads = worth(threads, x, dy, units);
  // Of each slot: float64 sums of weight and bias, then scratch.
  std::vector<double> memory(static_cast<size_t>(4 * columns * std::max(threads, 1)));
  const auto kernel = kernels().norm_rows;
  parallel_for(threads, units, [&](int64_t unit, int slot) {
    double* const sums = memory.data() + 4 * columns * slot;
    std::fill_n(sums, 2 * columns, 0.0);
    kernel({unit_of(x, unit), unit_of(dy, unit), centred, eps, square_root, sums, sums + columns, sums + 2 * columns});
    for (int64_t j = 0; j < columns; ++j) {
      static_cast<Out*>(out.weight)[unit * columns + j] = static_cast<Out>(sums[j]);
      static_cast<Out*>(out.bias)[unit * columns + j] = static_cast<Out>(sums[columns + j]);
    }
  });
}

}  // namespace

void norm_gradients(const UnitMatrices& x, const UnitMatrices& dy, int64_t units, const ChannelStatistics& statistics,
                    const NormGradients& out, int threads) {
  const int64_t channels = x.first.rows;
  const int64_t blocks = (channels + kNormChannels - 1) / kNormChannels;
  std::vector<ChannelMoments> moments(static_cast<size_t>(units * channels));
  const auto kernel = kernels().channel_moments;
  parallel_for(worth(threads, x, dy, units), units * blocks, [&](int64_t task, int) {
    const int64_t unit = task / blocks, channel = task % blocks * kNormChannels;
    kernel({unit_of(x, unit), unit_of(dy, unit), channel, std::min(kNormChannels, channels - channel),
            moments.data() + unit * channels + channel});
  });
  Scales scales(moments, units, channels, x.first.columns, statistics);
  if (in_float64(x, dy)) {
    scales.store<double>(moments, units, channels, out);
  } else {
    scales.store<float>(moments, units, channels, out);
  }
}

void norm_gradients_rows(const UnitMatrices& x, const UnitMatrices& dy, int64_t units, bool centred, double eps,
                         const NormGradients& out, int threads) {
  (in_float64(x, dy) ? rows<double> : rows<float>)(x, dy, units, centred, eps, out, threads);
}

}  // namespace imbdyn
