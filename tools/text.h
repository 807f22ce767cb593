// Cuts text for a person, and writes it.
#pragma once

#include <string>

inline std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// Writes `text` into the file `path`, or to standard output where that is "-". Throws Failure, which calls the text `what`, where it can't.
void write_text(const std::string& path, const std::string& what, const std::string& text);
