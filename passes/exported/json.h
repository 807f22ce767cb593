// The JSON of an exported program: the schema is torch/_export/serde/schema.py of PyTorch.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

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

}  // namespace bnfold::exported
