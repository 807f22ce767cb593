// Reads the options of a fold from JSON, as the operators take them.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bnfold/bnfold.h"

namespace bnfold {

namespace {

using Json = nlohmann::json;

template <typename Predicate>
void require_list_of(const Json& value, const Predicate& predicate, const char* problem) {
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), predicate)) throw Error(problem);
}

std::vector<std::string> names(const Json& value) {
  require_list_of(
      value, [](const Json& name) { return name.is_string(); }, "preserved_attributes must be a list of names");
  return value.get<std::vector<std::string>>();
}

std::vector<std::optional<int64_t>> ranks(const Json& value) {
  require_list_of(
      value, [](const Json& rank) { return rank.is_null() || rank.is_number_integer(); },
      "input_ranks must be a list with a whole number for each argument of forward, null where it is open");
  std::vector<std::optional<int64_t>> ranks;
  for (const Json& rank : value) ranks.push_back(rank.is_null() ? std::nullopt : std::optional<int64_t>(rank.get<int64_t>()));
  return ranks;
}

int64_t limit(const Json& value) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0) throw Error("fold_limit must be a whole number, 0 or more");
  return value.get<int64_t>();
}

Target target(const Json& value) {
  const auto found = value.is_string() ? target_named(value.get<std::string>()) : std::nullopt;
  if (found) return *found;
  std::vector<std::string_view> names;
  for (const Target target : all_targets()) names.push_back(name(target));
  throw Error(fmt::format("there is no target {}; the targets are {}", value.dump(), fmt::join(names, ", ")));
}

Json parsed(const std::string& text) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    throw Error(fmt::format("the options are no JSON: {}", error.what()));
  }
}

}  // namespace

Options options_from_json(const std::string& text) {
  const Json json = parsed(text);
  if (!json.is_object()) throw Error("the options must be a JSON object");
  Options options;
  for (const auto& [key, value] : json.items()) {
    if (key == "preserved_attributes") {
      options.preserved_attributes = names(value);
    } else if (key == "input_ranks") {
      options.input_ranks = ranks(value);
    } else if (key == "target") {
      options.target = target(value);
    } else if (key == "fold_limit") {
      options.fold_limit = limit(value);
    } else {
      throw Error(
          fmt::format("there is no option '{}'; the options are preserved_attributes, input_ranks, target and fold_limit", key));
    }
  }
  return options;
}

}  // namespace bnfold
