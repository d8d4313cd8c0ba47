// What imbdyn._C has for the trace.
#pragma once

#include <pybind11/pybind11.h>

namespace imbdyn {

void bind_trace(pybind11::module_& m);

}  // namespace imbdyn
