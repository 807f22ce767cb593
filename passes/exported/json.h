// The JSON of an exported program: the schema is torch/_export/serde/schema.py of PyTorch.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <vector>

namespace bnfold::exported {

using Json = nlohmann::ordered_json;  // written in the order in which it was read

// The kind of a value that is an object with one member, {"as_tensor": {...}}, and what it holds.
inline const std::string& kind_of(const Json& one) {
  if (!one.is_object() || one.size() != 1) throw std::out_of_range("no object with one member");
  return one.begin().key();
}
inline const Json& content_of(const Json& one) {
  kind_of(one);
  return one.begin().value();
}

// Calls `visit` with each name of a value in `argument`, in its order. The graphs of regions have names of their own.
template <typename AnyJson, typename Visit>
void for_each_name(AnyJson& argument, const Visit& visit) {
  if (argument.is_array()) {
    for (auto& element : argument) for_each_name(element, visit);
  } else if (argument.is_object()) {
    for (auto& [key, value] : argument.items()) {
      if ((key == "name" || key == "as_name") && value.is_string()) {
        visit(value);
      } else if (key != "as_graph") {
        for_each_name(value, visit);
      }
    }
  }
}

inline std::vector<std::string> names_in(const Json& argument) {
  std::vector<std::string> names;
  for_each_name(argument, [&names](const Json& name) { names.push_back(name.get<std::string>()); });
  return names;
}

// The only name in `argument`, empty where there is none, or several.
inline std::string only_name(const Json& argument) {
  const std::vector<std::string> names = names_in(argument);
  return names.size() == 1 ? names.front() : "";
}

// What a graph tells of its values, by their names.
inline constexpr std::array kTables = {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values",
                                       "custom_obj_values"};

// The names of the values and nodes of a graph.
inline std::unordered_set<std::string> taken_names(const Json& graph) {
  std::unordered_set<std::string> taken;
  for (const char* table : kTables) {
    if (!graph.contains(table)) continue;
    for (const auto& [name, _] : graph.at(table).items()) taken.insert(name);
  }
  for (const Json& node : graph.at("nodes")) {
    if (node.contains("name") && node.at("name").is_string()) taken.insert(node.at("name").get<std::string>());
  }
  return taken;
}

}  // namespace bnfold::exported
