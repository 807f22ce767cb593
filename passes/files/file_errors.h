// The sentences of errors about files.
#pragma once

#include <fmt/format.h>

#include <string>

namespace bnfold {

// `text` as one line of UTF-8: a damaged file has its bytes quoted in what torch says, and a path may have any but zero.
std::string printable(const std::string& text);

// What torch said, `what`, without the place in the module's source, shortened.
std::string detail(std::string what);

// Throws a Failure, LoadError or SaveError, that says "PATH: sentence".
template <typename Failure>
[[noreturn]] void fail(const std::string& path, const std::string& sentence) {
  throw Failure(printable(fmt::format("{}: {}", path, sentence)));
}

}  // namespace bnfold
