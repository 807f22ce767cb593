// Makes one clear sentence of what torch said.
#pragma once

#include <string>

namespace bnfold {

// The message of an error that a TorchScript interpreter wrapped into a traceback of the model's source, and the first line of any
// other text.
inline std::string first_sentence(const std::string& what) {
  size_t start = 0;
  for (const char* marker : {"RuntimeError: ", "Error: "}) {
    const size_t found = what.rfind(marker);
    if (found == std::string::npos) continue;
    start = found + std::string(marker).size();
    break;
  }
  const std::string line = what.substr(start, what.find('\n', start) - start);
  return line.empty() ? what.substr(0, what.find('\n')) : line;
}

}  // namespace bnfold
