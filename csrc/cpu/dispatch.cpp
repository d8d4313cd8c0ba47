#include "cpu/dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace imbdyn {
namespace {

struct Isa {
  std::string name;
  std::string needs;
  const Kernels* kernels;
  bool supported;
};

#if defined(__x86_64__) || defined(_M_X64)
constexpr const char* kBaselineName = "sse2";
#elif defined(__aarch64__) || defined(_M_ARM64)
constexpr const char* kBaselineName = "neon";
#else
constexpr const char* kBaselineName = "generic";
#endif

/// All instruction sets of this architecture, best first. `supported` asks the processor and the operating system,
/// which must save the wide registers (the compiler's builtin reads both cpuid and xgetbv).
const std::vector<Isa>& isas() {
  static const std::vector<Isa> list = [] {
    std::vector<Isa> known;
#if defined(IMBDYN_X86_KERNELS)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    known.push_back({"avx512", "AVX-512 F, BW, DQ and VL", &kAvx512Kernels, avx512});
    known.push_back({"avx2", "AVX2 and FMA", &kAvx2Kernels, avx2});
#endif
    known.push_back({kBaselineName, "nothing beyond the architecture's baseline", &kBaselineKernels, true});
    return known;
  }();
  return list;
}

std::string names(bool supported_only) {
  std::string joined;
  for (const Isa& isa : isas()) {
    if (supported_only && !isa.supported) continue;
    joined += (joined.empty() ? "" : ", ") + isa.name;
  }
  return joined;
}

const Isa& choose() {
  const char* const forced = std::getenv("IMBDYN_FORCE_ISA");
  for (const Isa& isa : isas()) {
    if (forced == nullptr || *forced == '\0') {
      if (isa.supported) return isa;
    } else if (isa.name == forced) {
      if (isa.supported) return isa;
      throw std::invalid_argument("IMBDYN_FORCE_ISA names '" + isa.name + "', which needs " + isa.needs +
                                  "; this machine has: " + names(true));
    }
  }
  throw std::invalid_argument(std::string("IMBDYN_FORCE_ISA names '") + forced +
                              "', which is none of the known instruction sets: " + names(false));
}

const Isa& active() {
  static const Isa& chosen = choose();
  return chosen;
}

}  // namespace

const Kernels& kernels() { return *active().kernels; }

const std::string& active_isa() { return active().name; }

std::vector<std::string> available_isas() {
  std::vector<std::string> available;
  for (const Isa& isa : isas()) {
    if (isa.supported) available.push_back(isa.name);
  }
  return available;
}

}  // namespace imbdyn
