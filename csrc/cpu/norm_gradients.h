// Each unit's gradient of a normalisation's scale and bias: sums of dy * xhat and of dy, each array read once.
#pragma once

#include "cpu/kernels.h"

namespace imbdyn {

/// Units, each with a matrix `first` like unit 0's. The stride counts elements.
struct UnitMatrices {
  Matrix first;
  int64_t stride;
};

/// What the channels of units [U, C, P] are normalised by.
struct ChannelStatistics {
  int64_t num_groups;      ///< divides C: neighbouring channels that share statistics
  bool across_units;       ///< whether they are of all units together
  const double* mean;      ///< [C], or null: those of x
  const double* variance;  ///< [C], or null
  double eps;
};

/// [U, C] each, written; float64 if x or dy is, else float32.
struct NormGradients {
  void* weight;
  void* bias;
};

/// For x and dy [C, P] of each unit. The result does not depend on `threads`. Memory: 32 bytes a unit and channel.
void norm_gradients(const UnitMatrices& x, const UnitMatrices& dy, int64_t units, const ChannelStatistics& statistics,
                    const NormGradients& out, int threads);

/// For x and dy [L, C] of each unit, rows normalised by their own statistics (`centred`: about their mean). A unit is
/// one thread's. Memory: 32 bytes a column and thread.
void norm_gradients_rows(const UnitMatrices& x, const UnitMatrices& dy, int64_t units, bool centred, double eps,
                         const NormGradients& out, int threads);

}  // namespace imbdyn
