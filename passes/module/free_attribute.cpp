#include "module/free_attribute.h"

#include <fmt/format.h>

namespace bnfold {

std::string free_attribute(const torch::jit::Module& module, const std::string& name) {
  std::string free = name;
  for (int number = 1; module.hasattr(free) || module.find_method(free); ++number) free = fmt::format("{}_{}", name, number);
  return free;
}

}  // namespace bnfold
