// LibTorch does not lock the compilation unit that a module shares with others, and to which freezing adds classes and methods.
#pragma once

#include <mutex>

namespace bnfold {

// Held by whoever adds to one.
inline std::mutex& compilation_units() {
  static std::mutex mutex;
  return mutex;
}

}  // namespace bnfold
