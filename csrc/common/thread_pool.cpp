#include "common/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#include "common/openmp_team.h"

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace imbdyn {
namespace {

// A wrong thread number must not exhaust the machine; no kernel here gains from more.
constexpr int kMostWorkers = 255;

struct Job {
  void (*body)(void*, int64_t, int);
  void* context;
  int64_t tasks;
  std::atomic<int64_t> next{0};

  void work(int slot) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(context, task, slot);
  }
};

class Pool {
 public:
  bool try_acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  /// Only for the caller that acquired the pool.
  void run(Job& job, int helpers) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      start_workers(std::min(helpers, kMostWorkers));
      job_ = &job;
      open_places_ = std::min(helpers, workers_);
    }
    for (int i = 0; i < helpers; ++i) wake_.notify_one();
    job.work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    // A thread that wakes later finds no place: the caller waits for those at work, never for those asleep.
    open_places_ = 0;
    idle_.wait(lock, [this] { return active_ == 0; });
    job_ = nullptr;
  }

 private:
  void start_workers(int wanted) {
    for (; workers_ < wanted; ++workers_) {
      try {
        std::thread([this] { sleep_and_work(); }).detach();
      } catch (const std::system_error&) {
        return;  // The system gives no more threads; the work is done by those there are.
      }
    }
  }

  [[noreturn]] void sleep_and_work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return open_places_ > 0; });
      const int slot = open_places_--;
      ++active_;
      Job* job = job_;
      lock.unlock();
      job->work(slot);
      lock.lock();
      if (--active_ == 0) idle_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  Job* job_ = nullptr;
  int workers_ = 0;
  int open_places_ = 0;
  int active_ = 0;
};

std::atomic<Pool*> current_pool{nullptr};

#if !defined(_WIN32)
// fork copies the pool but not its threads, and its mutex may be locked in the copy: the child abandons it.
void abandon_pool() { current_pool.store(nullptr); }
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, abandon_pool);
#endif

/// The process's pool, made on first use and never destroyed: its threads may outlive every static object.
Pool& pool() {
  Pool* found = current_pool.load(std::memory_order_acquire);
  if (found == nullptr) {
    Pool* made = new Pool;
    if (current_pool.compare_exchange_strong(found, made)) return *made;
    delete made;
  }
  return *found;
}

}  // namespace

void run_tasks(int threads, int64_t tasks, void (*body)(void*, int64_t, int), void* context) {
  const int helpers = static_cast<int>(std::min<int64_t>(threads, tasks)) - 1;
  Job job{body, context, tasks};
  if (helpers < 1) return job.work(0);
  const auto work = [](void* shared, int slot) { static_cast<Job*>(shared)->work(slot); };
  if (run_on_openmp_team(helpers + 1, work, &job)) return;
  Pool& shared = pool();
  if (!shared.try_acquire()) return job.work(0);
  shared.run(job, helpers);
  shared.release();
}

}  // namespace imbdyn
