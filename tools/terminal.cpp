#include "terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace {

constexpr int kColumns = 100;

// Empty where it is not set.
std::string_view environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
}

bool is_dumb() {
  const std::string_view terminal = environment("TERM");
  return terminal.empty() || terminal == "dumb";
}

int columns_of(int descriptor) {
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : kColumns;
}

}  // namespace

bool shows_colors(std::FILE* stream) {
  return isatty(fileno(stream)) != 0 && !is_dumb() && environment("NO_COLOR").empty();
}

int columns() {
  return columns_of(STDOUT_FILENO);
}

Progress::Progress() : on_terminal_(isatty(STDERR_FILENO) != 0 && !is_dumb()) {}

void Progress::show(const std::string& what) {
  if (!on_terminal_) return;
  const auto fits = static_cast<size_t>(columns_of(STDERR_FILENO) - 1);
  std::fputs(("\r\x1b[K" + what.substr(0, fits)).c_str(), stderr);
  shown_ = true;
}

void Progress::clear() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
  shown_ = false;
}
