#include "common/openmp_team.h"

#include <atomic>

#if defined(__linux__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace imbdyn {

#if defined(__linux__)
namespace {

/// The two entry points, which GNU's runtime and LLVM's both have. Looked up at run time: linking to a runtime would
/// load a second one beside torch's own copy, with threads of its own.
struct Runtime {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_number)() = nullptr;

  Runtime() {
    void* const start = dlsym(RTLD_DEFAULT, "GOMP_parallel");
    void* const number = dlsym(RTLD_DEFAULT, "omp_get_thread_num");
    if (start == nullptr || number == nullptr) return;
    parallel = reinterpret_cast<decltype(parallel)>(start);
    thread_number = reinterpret_cast<decltype(thread_number)>(number);
  }
};

// A forked child has a copy of the team without its threads, and would wait for them for ever.
std::atomic<bool> forked{false};
void note_fork() { forked.store(true); }
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, note_fork);

struct Call {
  const Runtime* runtime;
  void (*body)(void*, int);
  void* context;
};

void on_thread(void* data) {
  const Call* const call = static_cast<const Call*>(data);
  call->body(call->context, call->runtime->thread_number());
}

}  // namespace

bool run_on_openmp_team(int threads, void (*body)(void*, int), void* context) {
  static const Runtime runtime;
  if (runtime.parallel == nullptr || forked.load(std::memory_order_relaxed)) return false;
  Call call{&runtime, body, context};
  runtime.parallel(on_thread, &call, static_cast<unsigned>(threads), 0);
  return true;
}
#else
bool run_on_openmp_team(int, void (*)(void*, int), void*) { return false; }
#endif

}  // namespace imbdyn
