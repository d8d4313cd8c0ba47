// The threads of an OpenMP runtime that the process has loaded already, as torch does.
#pragma once

#include <cstdint>

namespace imbdyn {

/// Call `body(context, number)` on at most `threads` threads of the team that the calling thread has with that runtime,
/// the caller included, each with its own number below `threads`; return when all are done, false if there is no such
/// runtime, and then nothing was called.
///
/// Torch's threads spin for a while after each of its operations, in wait for the next one. Threads of our own would
/// share the cores with them; the team itself is at hand in a microsecond.
bool run_on_openmp_team(int threads, void (*body)(void* context, int number), void* context);

}  // namespace imbdyn
