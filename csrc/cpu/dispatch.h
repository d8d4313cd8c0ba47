// Which instruction set's kernels run: the best this machine has, or the one IMBDYN_FORCE_ISA names.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace imbdyn {

/// The kernels in use. Chosen on the first call, then fixed. Throws std::invalid_argument if IMBDYN_FORCE_ISA names
/// an instruction set that is unknown or that this machine lacks.
const Kernels& kernels();

/// Name of the instruction set of kernels().
const std::string& active_isa();

/// Names of those that run on this machine, best first.
std::vector<std::string> available_isas();

}  // namespace imbdyn
