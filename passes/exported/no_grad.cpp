#include "exported/no_grad.h"

#include <fmt/format.h>

#include <string>
#include <unordered_map>
#include <unordered_set>

namespace bnfold::exported {

namespace {

constexpr const char* kRegion = "torch.ops.higher_order.wrap_with_set_grad_enabled";

using Names = std::unordered_map<std::string, std::string>;

void rename(Json& argument, const Names& names) {
  for_each_name(argument, [&names](Json& name) {
    const auto found = names.find(name.get_ref<const std::string&>());
    if (found != names.end()) name = found->second;
  });
}

class Inliner {
 public:
  explicit Inliner(Json& program)
      : graph_(program.at("graph_module").at("graph")), module_(program.at("graph_module")), taken_(taken_names(graph_)) {}

  // Returns whether there was one.
  bool run() {
    Json nodes = Json::array();
    bool found = false;
    for (Json& node : graph_.at("nodes")) {
      for (Json& input : node.at("inputs")) rename(input.at("arg"), renamed_);
      if (can_be_inlined(node)) {
        add(node, nodes);
        found = true;
      } else {
        nodes.push_back(std::move(node));
      }
    }
    graph_.at("nodes") = std::move(nodes);
    rename(graph_.at("outputs"), renamed_);
    for (Json& spec : module_.at("signature").at("output_specs")) {
      Json& argument = spec.begin().value().at("arg");
      rename(argument, renamed_);
    }
    return found;
  }

 private:
  // Its operands and its results are values with one name each.
  static bool can_be_inlined(const Json& node) {
    if (node.at("target") != kRegion) return false;
    const Json& inputs = node.at("inputs");
    if (inputs.size() < 2 || !inputs[1].at("arg").contains("as_graph")) return false;
    const Json& region = inputs[1].at("arg").at("as_graph").at("graph");
    if (region.at("inputs").size() + 2 != inputs.size() || region.at("outputs").size() != node.at("outputs").size()) return false;
    for (size_t i = 2; i < inputs.size(); ++i) {
      if (only_name(inputs[i].at("arg")).empty() || only_name(region.at("inputs")[i - 2]).empty()) return false;
    }
    for (size_t i = 0; i < node.at("outputs").size(); ++i) {
      if (only_name(node.at("outputs")[i]).empty() || only_name(region.at("outputs")[i]).empty()) return false;
    }
    return true;
  }

  void add(const Json& node, Json& nodes) {
    const Json& inputs = node.at("inputs");
    Json region = inputs[1].at("arg").at("as_graph").at("graph");
    // What the region returns may have its name from the region itself, which is gone.
    if (node.contains("name") && node.at("name").is_string()) taken_.erase(node.at("name").get<std::string>());
    Names inside;
    for (size_t i = 2; i < inputs.size(); ++i) inside[only_name(region.at("inputs")[i - 2])] = only_name(inputs[i].at("arg"));
    for (const char* table : kTables) {
      if (!region.contains(table)) continue;
      for (const auto& [name, value] : region.at(table).items()) {
        if (inside.count(name) != 0) continue;
        graph_[table][inside[name] = unused(name)] = value;
      }
    }
    for (Json& inner : region.at("nodes")) {
      for (Json& input : inner.at("inputs")) rename(input.at("arg"), inside);
      rename(inner.at("outputs"), inside);
      if (inner.contains("name") && inner.at("name").is_string()) {
        const auto name = inner.at("name").get<std::string>();
        const auto found = inside.find(name);
        inner.at("name") = found == inside.end() ? unused(name) : found->second;
      }
      nodes.push_back(std::move(inner));
    }
    for (size_t i = 0; i < node.at("outputs").size(); ++i) {
      const std::string result = only_name(region.at("outputs")[i]);
      const auto found = inside.find(result);
      renamed_[only_name(node.at("outputs")[i])] = found == inside.end() ? result : found->second;
    }
  }

  std::string unused(const std::string& name) {
    std::string free = name;
    for (int number = 1; !taken_.insert(free).second; ++number) free = fmt::format("{}_inlined_{}", name, number);
    return free;
  }

  Json& graph_;
  Json& module_;
  Names renamed_;  // what a region returned, in the graph
  std::unordered_set<std::string> taken_;
};

}  // namespace

void inline_grad_regions(Json& program) {
  while (Inliner(program).run()) {
  }
}

}  // namespace bnfold::exported
