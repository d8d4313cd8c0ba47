// Calls every family of kernels, and prints a line `name value...` for each array of results, 17 digits a number.
// tests/csrc/test_arm64.py compares what machines and instruction sets make of them.
#include <cstdio>
#include <string>

#include "cpu/dispatch.h"
#include "families.h"

int main() {
  using namespace imbdyn;
  std::printf("active %s\navailable", active_isa().c_str());
  for (const std::string& name : available_isas()) std::printf(" %s", name.c_str());
  std::printf("\n");
  for (const Results::Array& array : all_types().arrays) {
    std::printf("%s", array.name.c_str());
    for (const double value : array.values) std::printf(" %.17g", value);
    std::printf("\n");
  }
}
