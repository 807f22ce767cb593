#include "exported/write_graph.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "bnfold/bnfold.h"
#include "exported/targets.h"
#include "exported/unread.h"
#include "graph/list_maker.h"
#include "graph/module_places.h"
#include "knowledge/static_values.h"

namespace bnfold::exported {

namespace jit = torch::jit;

namespace {

// "aten::relu" of "aten::relu_" too
std::string functional_kind(c10::Symbol kind) {
  std::string name = kind.toQualString();
  if (name.rfind("aten::", 0) == 0 && name.back() == '_' && name[name.size() - 2] != '_') name.pop_back();
  return name;
}

Json number(int64_t one) {
  return Json{{"as_int", one}};
}

Json numbers(at::IntArrayRef all) {
  Json list = Json::array();
  for (const int64_t one : all) list.push_back(number(one));
  return list;
}

// As sympy prints a product of sizes.
Json product(const Json& one, const Json& other) {
  if (one.contains("as_int") && other.contains("as_int"))
    return number(one.at("as_int").get<int64_t>() * other.at("as_int").get<int64_t>());
  const auto text = [](const Json& size) {
    return size.contains("as_int") ? fmt::format("Integer({})", size.at("as_int").get<int64_t>())
                                   : size.at("as_expr").at("expr_str").get<std::string>();
  };
  return Json{{"as_expr", {{"expr_str", fmt::format("Mul({}, {})", text(one), text(other))}, {"hint", nullptr}}}};
}

// Of a copy without gaps, in the usual order.
void make_contiguous(Json& meta) {
  Json stride = number(1);
  Json strides = Json::array();
  const Json& sizes = meta.at("sizes");
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    strides.insert(strides.begin(), stride);
    stride = product(*size, stride);
  }
  meta["strides"] = std::move(strides);
  meta["storage_offset"] = number(0);
}

Json meta_of(const at::Tensor& tensor, bool requires_grad, const Json& device) {
  return Json{{"dtype", number_of(tensor.scalar_type())},
              {"sizes", numbers(tensor.sizes())},
              {"requires_grad", requires_grad},
              {"device", device},
              {"strides", numbers(tensor.strides())},
              {"storage_offset", number(0)},
              {"layout", 7}};
}

std::string identifier(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char one) { return std::isalnum(one) == 0; }, '_');
  return text;
}

// What is written has no gaps.
at::Tensor dense(const at::Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) return tensor;
  return tensor.detach().contiguous().set_requires_grad(tensor.requires_grad());
}

// A static tensor that the graph reads.
struct Leaf {
  std::string path;
  std::string name;  // of its value
  at::Tensor tensor;
  bool is_new;
};

class Writer {
 public:
  Writer(Json& program, const ProgramGraph& read, const ParameterStore& store, const Tensors& tensors)
      : module_(program.at("graph_module")),
        graph_(module_.at("graph")),
        is_functional_(!is_training(program)),
        taken_(taken_names(graph_)),
        read_(read),
        store_(store),
        tensors_(tensors) {}

  Tensors run() {
    for (const auto& [number, name] : read_.inputs) names_[number] = name;
    remove_unread(read_.graph());
    write_inputs();
    Json nodes = Json::array();
    for (const jit::Node* node : read_.graph().nodes()) write(node, nodes);
    graph_.at("nodes") = std::move(nodes);
    write_outputs();
    drop_values_that_are_gone();
    return std::move(result_);
  }

 private:
  static bool is_training(const Json& program) {
    const auto verifiers = program.find("verifiers");
    if (verifiers == program.end()) return true;
    return std::find(verifiers->begin(), verifiers->end(), Json("TRAINING")) != verifiers->end();
  }

  const NodeRecord* record_of(const jit::Node* node) const {
    const auto source = node->sourceRange().source();
    const auto found = source == nullptr ? read_.records.end() : read_.records.find(source.get());
    return found == read_.records.end() ? nullptr : &found->second;
  }

  const Json& json_of(const NodeRecord& record) const { return graph_.at("nodes")[record.number]; }

  // ---- inputs

  void write_inputs() {
    Json& specs = module_.at("signature").at("input_specs");
    for (size_t i = 0; i < specs.size(); ++i) {
      const std::string path = path_of(specs[i]);
      if (path.empty()) continue;
      place_of_.emplace(path, i);
      devices_.emplace(path, graph_.at("tensor_values").at(only_name(graph_.at("inputs").at(i))).at("device"));
    }
    find_leaves();
    Json inputs = Json::array();
    Json new_specs = Json::array();
    const std::unordered_set<std::string> runtime = names_of_inputs();
    for (size_t i = 0; i < specs.size(); ++i) {
      const std::string path = path_of(specs[i]);
      const auto leaf = path.empty() ? leaves_.end() : leaves_.find(path);
      const bool is_runtime = path.empty() || runtime.count(only_name(graph_.at("inputs")[i])) != 0;
      if (leaf == leaves_.end() && !is_runtime) continue;
      if (leaf == leaves_.end() && !path.empty()) keep_tensor(path);
      if (leaf != leaves_.end()) write_leaf(leaf->second, kind_of(specs[i]) == "parameter");
      new_specs.push_back(specs[i]);
      inputs.push_back(graph_.at("inputs")[i]);
    }
    for (const std::string& path : new_paths_) add_input(leaves_.at(path), specs, new_specs, inputs);
    for (const auto& [path, tensor] : tensors_) {
      if (place_of_.count(path) == 0) result_.emplace(path, tensor);
    }
    specs = std::move(new_specs);
    graph_.at("inputs") = std::move(inputs);
  }

  std::unordered_set<std::string> names_of_inputs() const {
    std::unordered_set<std::string> names;
    for (const auto& [_, name] : read_.inputs) names.insert(name);
    return names;
  }

  void keep_tensor(const std::string& path) {
    const auto found = tensors_.find(path);
    if (found != tensors_.end()) result_.emplace(path, found->second);
  }

  // First those that are still there, which keep their names.
  void find_leaves() {
    std::map<size_t, const jit::Node*> added;  // in the order in which they were
    for (const jit::Node* node : read_.graph().nodes()) {
      if (node->kind() != jit::prim::GetAttr) continue;
      const auto module = store_.module_path(node->input());
      if (!module || store_.module_path(node->output())) continue;
      if (const ParameterStore::Added* one = store_.added(node)) {
        added.emplace(one->number, node);
        continue;
      }
      const std::string path = joined(*module, node->s(jit::attr::name));
      const std::string name = only_name(graph_.at("inputs")[place_of_.at(path)]);
      names_[node->output()->unique()] = name;
      leaves_.emplace(path, Leaf{path, name, tensors_.at(path), /*is_new=*/false});
    }
    for (const auto& [_, node] : added) name_added(node);
  }

  void name_added(const jit::Node* node) {
    const ParameterStore::Added& added = *store_.added(node);
    const std::string module = *store_.module_path(node->input());
    for (int64_t count = 0;; ++count) {
      const std::string path = joined(module, count == 0 ? added.name : fmt::format("{}_{}", added.name, count));
      const auto same = leaves_.find(path);
      if (same != leaves_.end()) {
        if (!same->second.is_new || !same->second.tensor.equal(added.tensor)) continue;
        names_[node->output()->unique()] = same->second.name;
        return;
      }
      if (is_taken(path)) continue;
      const auto place = place_of_.find(path);
      const bool replaces = place != place_of_.end();
      const std::string name =
          replaces ? only_name(graph_.at("inputs")[place->second]) : unused((added.is_buffer ? "b_" : "p_") + identifier(path));
      if (!replaces) new_paths_.push_back(path);
      leaves_.emplace(path, Leaf{path, name, dense(added.tensor), /*is_new=*/true});
      names_[node->output()->unique()] = name;
      if (added.is_buffer) new_buffers_.insert(path);
      return;
    }
  }

  // By a tensor that the program hands on, a module, or what is no tensor.
  bool is_taken(const std::string& path) const {
    const auto place = place_of_.find(path);
    if (place != place_of_.end()) {
      const std::string name = only_name(graph_.at("inputs")[place->second]);
      const bool is_runtime =
          std::any_of(read_.inputs.begin(), read_.inputs.end(), [&name](const auto& input) { return input.second == name; });
      return is_runtime;
    }
    if (tensors_.count(path) != 0) return true;
    const std::string folder = path + ".";
    const auto is_inside = [&folder](const auto& entry) { return entry.first.rfind(folder, 0) == 0; };
    if (std::any_of(place_of_.begin(), place_of_.end(), is_inside)) return true;
    const Json& specs = module_.at("signature").at("input_specs");
    return std::any_of(specs.begin(), specs.end(), [&path](const Json& spec) {
      return kind_of(spec) == "custom_obj" && content_of(spec).at("custom_obj_name") == path;
    });
  }

  void write_leaf(const Leaf& leaf, bool is_parameter) {
    result_.emplace(leaf.path, leaf.tensor);
    if (!leaf.is_new) return;
    Json& meta = graph_.at("tensor_values")[leaf.name];
    meta = meta_of(leaf.tensor, is_parameter && leaf.tensor.requires_grad(), device_beside(leaf.path));
  }

  // That of the tensor that had the name, or of another one of its layer.
  Json device_beside(const std::string& path) const {
    const auto same = devices_.find(path);
    if (same != devices_.end()) return same->second;
    const std::string folder = path.substr(0, path.rfind('.') == std::string::npos ? 0 : path.rfind('.') + 1);
    const auto beside =
        std::find_if(devices_.begin(), devices_.end(), [&](const auto& one) { return one.first.rfind(folder, 0) == 0; });
    return beside == devices_.end() ? devices_.begin()->second : beside->second;
  }

  // Behind those of its kind.
  void add_input(const Leaf& leaf, const Json& old_specs, Json& specs, Json& inputs) {
    const bool is_parameter =
        new_buffers_.count(leaf.path) == 0 && (leaf.tensor.requires_grad() || has_parameter_beside(leaf.path, old_specs));
    const Json argument{{"name", leaf.name}};
    const Json spec = is_parameter ? Json{{"parameter", {{"arg", argument}, {"parameter_name", leaf.path}}}}
                                   : Json{{"buffer", {{"arg", argument}, {"buffer_name", leaf.path}, {"persistent", true}}}};
    size_t place = 0;
    for (size_t i = 0; i < specs.size(); ++i) {
      const std::string& kind = kind_of(specs[i]);
      if (kind == "parameter" || (!is_parameter && kind == "buffer")) place = i + 1;
    }
    specs.insert(specs.begin() + static_cast<std::ptrdiff_t>(place), spec);
    inputs.insert(inputs.begin() + static_cast<std::ptrdiff_t>(place), Json{{"as_tensor", argument}});
    write_leaf(leaf, is_parameter);
  }

  static bool has_parameter_beside(const std::string& path, const Json& specs) {
    const std::string folder = path.substr(0, path.rfind('.') == std::string::npos ? 0 : path.rfind('.') + 1);
    return std::any_of(specs.begin(), specs.end(), [&folder](const Json& spec) {
      const std::string other = path_of(spec);
      return kind_of(spec) == "parameter" && other.rfind(folder, 0) == 0 && other.find('.', folder.size()) == std::string::npos;
    });
  }

  // ---- nodes

  void write(const jit::Node* node, Json& nodes) {
    if (node->kind() == jit::prim::Constant || node->kind() == jit::prim::GetAttr || node->kind() == jit::prim::ListConstruct)
      return;
    const NodeRecord* record = record_of(node);
    if (node->kind() == jit::prim::ListUnpack && record != nullptr) return name_results(node, *record);
    if (node->kind().is_prim())
      throw Error(fmt::format("the fold made a {} that no exported program has", node->kind().toQualString()));
    const bool is_the_old_one = record != nullptr && functional_kind(record->kind) == functional_kind(node->kind()) &&
                                written_.insert(record->number).second;
    if (is_the_old_one) {
      nodes.push_back(rewritten(node, *record));
      if (node->outputs().size() != 1 || node->output()->type()->kind() != c10::TypeKind::ListType) name_results(node, *record);
    } else {
      nodes.push_back(added(node, record));
    }
  }

  void name_results(const jit::Node* node, const NodeRecord& record) {
    for (size_t i = 0; i < node->outputs().size(); ++i) names_[node->output(i)->unique()] = record.results.at(i);
  }

  Json rewritten(const jit::Node* node, const NodeRecord& record) {
    Json json = json_of(record);
    if (record.is_opaque) {
      size_t place = 0;
      for (Json& input : json.at("inputs")) {
        for_each_name(input.at("arg"), [&](Json& name) { name = name_of(node->input(place++)); });
      }
      return json;
    }
    std::vector<std::string> names = record.arguments;
    if (node->kind() != record.kind) {
      json.at("target") = target_of(node->schema());
      rename_arguments(json.at("inputs"), names, node->schema());
    }
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      if (!names.at(i).empty()) rewrite(json.at("inputs"), names[i], node, i, record.inputs.at(i));
    }
    if (has_tensor_for_number(json.at("target").get<std::string>(), node)) json.at("target") = target_of(node->schema());
    return json;
  }

  // What dropout_ calls self is the input of dropout.
  static void rename_arguments(Json& arguments, std::vector<std::string>& names, const c10::FunctionSchema& schema) {
    for (size_t i = 0; i < names.size(); ++i) {
      const auto same =
          std::find_if(arguments.begin(), arguments.end(), [&](const Json& one) { return one.at("name") == names[i]; });
      names[i] = schema.arguments().at(i).name();
      if (same != arguments.end()) same->at("name") = names[i];
    }
  }

  // A number that became a tensor makes another overload of the operator.
  static bool has_tensor_for_number(const std::string& target, const jit::Node* node) {
    const c10::FunctionSchema* schema = schema_of(target);
    if (schema == nullptr || schema->arguments().size() != node->inputs().size()) return false;
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      const bool is_tensor = node->input(i)->type()->kind() == c10::TypeKind::TensorType;
      if (is_tensor && schema->arguments()[i].type()->kind() == c10::TypeKind::NumberType) return true;
    }
    return false;
  }

  // The argument `name` of a node, where it is another one now.
  void rewrite(Json& arguments, const std::string& name, const jit::Node* node, size_t place, size_t before) {
    const jit::Value* value = node->input(place);
    const auto same =
        std::find_if(arguments.begin(), arguments.end(), [&name](const Json& one) { return one.at("name") == name; });
    const std::vector<std::string> names = names_in(value);
    if (names.empty() && value->unique() == before) return;
    if (same != arguments.end()) {
      if (exported::names_in(same->at("arg")).size() == names.size() && !names.empty()) {
        size_t next = 0;
        for_each_name(same->at("arg"), [&](Json& one) { one = names[next++]; });
      } else {
        same->at("arg") = argument(value);
      }
      return;
    }
    if (value->unique() != before) add_argument(arguments, name, node, place);
  }

  // In the order of the schema, where arguments that were left out before it make it one that is named.
  void add_argument(Json& arguments, const std::string& name, const jit::Node* node, size_t place) {
    constexpr int positional = 1;
    constexpr int by_keyword = 2;
    const auto& schema = node->schema().arguments();
    size_t at = 0;
    for (size_t before = 0; before < place; ++before) {
      if (at < arguments.size() && arguments[at].at("name") == schema.at(before).name()) ++at;
    }
    const bool is_named = schema.at(place).kwarg_only() || at != place;
    arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(at),
                     Json{{"name", name}, {"arg", argument(node->input(place))}, {"kind", is_named ? by_keyword : positional}});
  }

  // The values that `value` names, itself or the elements of a list.
  std::vector<std::string> names_in(const jit::Value* value) const {
    std::vector<std::string> names;
    if (const auto items = items_of_list(value)) {
      for (const jit::Value* element : *items) {
        if (element->node()->kind() != jit::prim::Constant) names.push_back(name_of(element));
      }
    } else if (value->node()->kind() != jit::prim::Constant) {
      names.push_back(name_of(value));
    }
    return names;
  }

  const std::string& name_of(const jit::Value* value) const {
    const auto found = names_.find(value->unique());
    if (found == names_.end())
      throw Error(fmt::format("the fold reads %{}, which the exported program has not", value->debugName()));
    return found->second;
  }

  Json argument(const jit::Value* value) const {
    if (value->node()->kind() == jit::prim::Constant) return constant(value);
    if (const auto items = items_of_list(value)) {
      Json list = Json::array();
      for (const std::string& name : names_in(value)) list.push_back(Json{{"name", name}});
      if (list.size() != items->size()) throw Error("the fold made a list that no exported program has");
      return Json{{"as_tensors", list}};
    }
    return Json{{"as_tensor", {{"name", name_of(value)}}}};
  }

  static Json constant(const jit::Value* value) {
    const auto content = jit::toIValue(value);
    if (content && content->isNone()) return Json{{"as_none", true}};
    if (content && content->isBool()) return Json{{"as_bool", content->toBool()}};
    if (content && content->isInt()) return Json{{"as_int", content->toInt()}};
    if (content && content->isDouble()) return Json{{"as_float", content->toDouble()}};
    throw Error(fmt::format("the fold made a constant %{} that no exported program has", value->debugName()));
  }

  Json added(const jit::Node* node, const NodeRecord* record) {
    const c10::FunctionSchema& schema = node->schema();
    const bool makes_contiguous = node->kind() == jit::aten::contiguous;
    Json arguments = Json::array();
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      const c10::Argument& one = schema.arguments().at(i);
      const auto content = jit::toIValue(node->input(i));
      if (content && one.default_value() && *content == *one.default_value()) continue;
      if (!content || !content->isInt() || one.name() != "memory_format") {
        add_argument(arguments, one.name(), node, i);
        continue;
      }
      const auto format = static_cast<at::MemoryFormat>(content->toInt());
      arguments.push_back(Json{{"name", one.name()}, {"arg", {{"as_memory_format", number_of(format)}}}, {"kind", 2}});
    }
    std::string target = target_of(schema);
    if (makes_contiguous && is_functional_) {  // which has no views that may be copies
      target = "torch.ops.aten.clone.default";
      arguments.push_back(
          Json{{"name", "memory_format"}, {"arg", {{"as_memory_format", number_of(at::MemoryFormat::Contiguous)}}}, {"kind", 2}});
    }
    const std::string name = unused(node->kind().toUnqualString());
    Json meta = meta_of_result(node);
    if (makes_contiguous) make_contiguous(meta);
    graph_.at("tensor_values")[name] = std::move(meta);
    names_[node->output()->unique()] = name;
    return Json{{"target", target},
                {"inputs", arguments},
                {"outputs", Json::array({Json{{"as_tensor", {{"name", name}}}}})},
                {"metadata", record == nullptr ? Json::object() : json_of(*record).at("metadata")},
                {"is_hop_single_tensor_return", nullptr},
                {"name", name}};
  }

  // Of a weight that is viewed as it is; of everything else as what it is made of, which has its sizes and dtype.
  Json meta_of_result(const jit::Node* node) const {
    if (const auto view = static_tensor(store_, const_cast<jit::Value*>(node->output()))) {
      return meta_of(view->tensor, view->tensor.requires_grad(), device_beside(""));
    }
    return graph_.at("tensor_values").at(name_of(node->input(0)));
  }

  std::string unused(const std::string& name) {
    std::string free = name;
    for (int count = 1; !taken_.insert(free).second; ++count) free = fmt::format("{}_{}", name, count);
    return free;
  }

  // ---- outputs

  void write_outputs() {
    Json& specs = module_.at("signature").at("output_specs");
    size_t next = 0;
    for (size_t i = 0; i < graph_.at("outputs").size(); ++i) {
      std::vector<std::string> names;
      for_each_name(graph_.at("outputs")[i], [&](Json& name) {
        names.push_back(name_of(read_.graph().outputs().at(next++)));
        name = names.back();
      });
      size_t place = 0;
      if (i >= specs.size() || names.empty()) continue;
      for_each_name(specs[i].begin().value().at("arg"), [&](Json& name) { name = names.at(place++); });
    }
  }

  void drop_values_that_are_gone() {
    std::unordered_set<std::string> defined;
    const auto define = [&defined](const Json& argument) {
      for_each_name(argument, [&defined](const Json& name) { defined.insert(name.get<std::string>()); });
    };
    for (const Json& input : graph_.at("inputs")) define(input);
    for (const Json& node : graph_.at("nodes")) define(node.at("outputs"));
    for (const char* table : kTables) {
      if (!graph_.contains(table)) continue;
      Json left = Json::object();
      for (const auto& [name, value] : graph_.at(table).items()) {
        if (defined.count(name) != 0) left[name] = std::move(value);
      }
      graph_.at(table) = std::move(left);
    }
  }

  Json& module_;
  Json& graph_;
  const bool is_functional_;
  std::unordered_set<std::string> taken_;  // names of values
  const ProgramGraph& read_;
  const ParameterStore& store_;
  const Tensors& tensors_;
  Tensors result_;
  std::unordered_map<size_t, std::string> names_;     // of the values of the graph, by their numbers
  std::unordered_set<size_t> written_;                // nodes of the JSON, by their numbers
  std::unordered_map<std::string, size_t> place_of_;  // of a dotted name among the inputs
  std::map<std::string, Json> devices_;               // by dotted name
  std::map<std::string, Leaf> leaves_;                // by path
  std::vector<std::string> new_paths_;                // of inputs that were not there
  std::unordered_set<std::string> new_buffers_;
};

}  // namespace

Tensors write_graph(Json& program, const ProgramGraph& graph, const ParameterStore& store, const Tensors& tensors) {
  return Writer(program, graph, store, tensors).run();
}

}  // namespace bnfold::exported
