// Any text is either Options or a bnfold::Error.
#include <cstddef>
#include <cstdint>
#include <string>

#include "bnfold/bnfold.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    bnfold::options_from_json(std::string(reinterpret_cast<const char*>(data), size));
  } catch (const bnfold::Error&) {
  }
  return 0;
}
