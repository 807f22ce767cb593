#include "text.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "failure.h"

void write_text(const std::string& path, const std::string& what, const std::string& text) {
  errno = 0;
  std::FILE* file = path == "-" ? stdout : std::fopen(path.c_str(), "w");
  const bool written = file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = file == nullptr || (file == stdout ? std::fflush(file) : std::fclose(file)) == 0;
  if (!written || !closed) {
    throw Failure(kCannotWrite, fmt::format("{}: the {} can't be written: {}", path, what, std::strerror(errno)));
  }
}
