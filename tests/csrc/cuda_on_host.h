// Runs CUDA kernels on this processor, a block at a time, its threads as fibers that change where one waits for others:
// what tests/csrc/test_cuda_kernels.py compiles instead of the CUDA headers. Slow; indices, barriers and sums are real.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)

struct Index {
  unsigned x;
};
inline Index threadIdx, blockIdx;

namespace on_host {

constexpr size_t kStack = 128 << 10;
constexpr int kMostThreads = 1024;

/// Threads that wait for each other: all of a block, or those of a warp.
struct Meeting {
  int members = 0, arrived = 0;
  unsigned round = 0;
  int any = 0, last_any = 0;
};

struct Fiber {
  ucontext_t context;
  bool done;
};

inline Fiber fibers[kMostThreads];
inline std::vector<char> stacks(kMostThreads* kStack);
inline ucontext_t scheduler;
inline unsigned current;
inline const std::function<void()>* body;
inline Meeting block;
inline Meeting warps[kMostThreads / 32];
inline uint64_t exchanged[kMostThreads];

inline void yield() { swapcontext(&fibers[current].context, &scheduler); }

inline void close_if_complete(Meeting& meeting) {
  if (meeting.arrived == 0 || meeting.arrived < meeting.members) return;
  meeting.arrived = 0;
  meeting.last_any = meeting.any;
  meeting.any = 0;
  ++meeting.round;
}

inline int meet(Meeting& meeting, int any = 0) {
  const unsigned round = meeting.round;
  ++meeting.arrived;
  meeting.any |= any;
  close_if_complete(meeting);
  while (meeting.round == round) yield();
  return meeting.last_any;
}

inline Meeting& own_warp() { return warps[threadIdx.x / 32]; }

inline void run_thread() {
  (*body)();
  fibers[current].done = true;
  --block.members;
  --own_warp().members;
  close_if_complete(block);
  close_if_complete(own_warp());
}

/// Launches: `grid` blocks of `threads`.
inline void launch(unsigned grid, unsigned threads, size_t, void*, const std::function<void()>& kernel) {
  body = &kernel;
  if (grid == 0) std::abort();  // CUDA refuses it
  for (unsigned b = 0; b < grid; ++b) {
    blockIdx.x = b;
    block = Meeting{};
    block.members = static_cast<int>(threads);
    for (unsigned t = 0; t < threads; ++t) {
      if (t % 32 == 0) warps[t / 32] = Meeting{};
      ++warps[t / 32].members;
      Fiber& fiber = fibers[t];
      fiber.done = false;
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = stacks.data() + t * kStack;
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = &scheduler;
      makecontext(&fiber.context, run_thread, 0);
    }
    for (unsigned left = threads; left > 0;) {
      const unsigned before = left;
      unsigned rounds = block.round;
      for (unsigned w = 0; w < (threads + 31) / 32; ++w) rounds += warps[w].round;
      for (unsigned t = 0; t < threads; ++t) {
        if (fibers[t].done) continue;
        current = threadIdx.x = t;
        swapcontext(&scheduler, &fibers[t].context);
        if (fibers[t].done) --left;
      }
      unsigned now = block.round;
      for (unsigned w = 0; w < (threads + 31) / 32; ++w) now += warps[w].round;
      if (left == before && now == rounds) {
        std::fprintf(stderr, "threads of block %u wait for each other for ever\n", b);
        std::abort();
      }
    }
  }
}

template <class T>
T exchange(T value, int from) {
  static_assert(sizeof(T) <= 8, "");
  std::memcpy(&exchanged[threadIdx.x], &value, sizeof value);
  meet(own_warp());
  T result;
  std::memcpy(&result, &exchanged[threadIdx.x / 32 * 32 + static_cast<unsigned>(from)], sizeof result);
  meet(own_warp());
  return result;
}

}  // namespace on_host

inline void __syncthreads() { on_host::meet(on_host::block); }
inline int __syncthreads_or(int any) { return on_host::meet(on_host::block, any != 0); }
inline void __syncwarp() { on_host::meet(on_host::own_warp()); }
inline int __any_sync(unsigned, int any) { return on_host::meet(on_host::own_warp(), any != 0); }
template <class T>
T __shfl_up_sync(unsigned, T value, int apart) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return on_host::exchange(value, lane >= apart ? lane - apart : lane);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int apart) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  return on_host::exchange(value, lane + apart < 32 ? lane + apart : lane);
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return on_host::exchange(value, from);
}
inline unsigned __ballot_sync(unsigned, bool yes) {
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane) bits |= on_host::exchange(yes ? 1u : 0u, lane) << lane;
  return bits;
}
inline unsigned __match_any_sync(unsigned, int value) {
  unsigned same = 0;
  for (int lane = 0; lane < 32; ++lane) same |= (on_host::exchange(value, lane) == value ? 1u : 0u) << lane;
  return same;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return ""; }
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}
