// Cuts text for a person.
#pragma once

#include <string>

inline std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}
