#include "text.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"

namespace {

bool is_written(std::FILE* file, const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), file) == text.size() && std::fflush(file) == 0;
}

}  // namespace

void write_text(const std::string& path, const std::string& what, const std::string& text) {
  errno = 0;
  bool written = false;
  if (path == "-") {
    written = is_written(stdout, text);
  } else if (std::FILE* file = std::fopen(path.c_str(), "w")) {
    written = is_written(file, text);
    written = std::fclose(file) == 0 && written;
  }
  if (!written) throw Failure(kCannotWrite, fmt::format("{}: the {} can't be written: {}", path, what, std::strerror(errno)));
}
