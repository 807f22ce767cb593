#include "files/file_errors.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace bnfold {

std::string printable(const std::string& text) {
  using nlohmann::json;
  auto line = json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
  std::replace_if(
      line.begin(), line.end(), [](unsigned char one) { return std::iscntrl(one) != 0; }, ' ');
  return line;
}

std::string detail(std::string what) {
  constexpr size_t kLongest = 300;
  what.erase(0, std::min(what.find_first_not_of("\n "), what.size()));
  for (const char* place : {"\n:\n", "\n  File ", "\nSerialized "}) what = what.substr(0, what.find(place));
  what.erase(std::min(what.find_last_not_of(":. \n") + 1, kLongest));
  return what;
}

}  // namespace bnfold
