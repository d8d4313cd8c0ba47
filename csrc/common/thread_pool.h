// Tasks for several threads: those of torch's OpenMP runtime where it is loaded, else of a small pool that sleeps.
#pragma once

#include <cstdint>
#include <type_traits>

namespace imbdyn {

/// Run `body(context, task, slot)` for each task in 0..tasks-1 on at most `threads` threads, the caller included, and
/// return when all are done. Which thread takes which task is not fixed: results must not depend on it. No two tasks
/// that run at once have the same slot, a number below min(threads, tasks), for scratch memory. `body` must not throw.
///
/// Callable from any thread. Without OpenMP, while one call holds the pool, another runs its tasks on its own thread. A
/// forked child starts threads of its own. Idle threads of the pool wait on a condition variable and never spin. They
/// are never joined: the process may end while they sleep.
void run_tasks(int threads, int64_t tasks, void (*body)(void* context, int64_t task, int slot), void* context);

/// The same for a callable: `parallel_for(threads, tasks, [&](int64_t task, int slot) {...})`.
template <class Body>
void parallel_for(int threads, int64_t tasks, Body&& body) {
  using Plain = std::remove_reference_t<Body>;
  run_tasks(
      threads, tasks, [](void* context, int64_t task, int slot) { (*static_cast<Plain*>(context))(task, slot); },
      &body);
}

}  // namespace imbdyn
