#include "exported/read_graph.h"

#include <fmt/format.h>
#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "exported/no_grad.h"
#include "exported/targets.h"
#include "exported/unread.h"
#include "graph/memory.h"
#include "graph/module_places.h"

namespace bnfold::exported {

namespace jit = torch::jit;

namespace {

constexpr const char* kDecomposedNorm = "torch.ops.aten._native_batch_norm_legit_no_training.default";

std::pair<std::string, std::string> owner_and_name(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? std::pair(std::string(), path) : std::pair(path.substr(0, dot), path.substr(dot + 1));
}

// Submodules on the way to tensors, made as they are asked for.
class Modules {
 public:
  Modules() : unit_(std::make_shared<jit::CompilationUnit>()), root_(made("ExportedProgram")) {}

  const jit::Module& root() const { return root_; }

  // Whether `path` can be a tensor: no other tensor is in its way, nor a module of that name.
  bool add(const std::string& path, const at::Tensor& tensor, bool is_buffer) {
    const auto [owner, name] = owner_and_name(path);
    auto module = find_or_make(owner);
    if (!module || name.empty() || module->hasattr(name)) return false;
    module->register_parameter(name, tensor, is_buffer);
    return true;
  }

 private:
  jit::Module made(const std::string& name) const { return {"__torch__." + name, unit_, /*shouldMangle=*/true}; }

  std::optional<jit::Module> find_or_make(const std::string& path) {
    if (path.empty()) return root_;
    const auto found = modules_.find(path);
    if (found != modules_.end()) return found->second;
    const auto [owner, name] = owner_and_name(path);
    auto parent = find_or_make(owner);
    if (!parent || name.empty() || parent->hasattr(name)) return std::nullopt;
    jit::Module module = made("Layer");
    parent->register_module(name, module);
    modules_.emplace(path, module);
    return module;
  }

  std::shared_ptr<jit::CompilationUnit> unit_;
  jit::Module root_;
  std::unordered_map<std::string, jit::Module> modules_;
};

// The last place in a stack trace that is not in PyTorch itself.
std::pair<std::string, size_t> place_of(const std::string& trace) {
  std::pair<std::string, size_t> last;
  std::pair<std::string, size_t> own;
  for (size_t at = trace.find("File \""); at != std::string::npos; at = trace.find("File \"", at + 1)) {
    const size_t start = at + 6;
    const size_t end = trace.find('"', start);
    constexpr std::string_view line = ", line ";
    if (end == std::string::npos || trace.compare(end + 1, line.size(), line) != 0) continue;
    const size_t number = std::strtoul(trace.c_str() + end + 1 + line.size(), nullptr, 10);
    if (number == 0 || end == start) continue;
    last = {trace.substr(start, end - start), number};
    if (last.first.find("/torch/") == std::string::npos && last.first.front() != '<')
      own = last;  // "<eval_with_key>": made by torch.fx
  }
  return own.second != 0 ? own : last;
}

std::string text_in(const Json& node, const char* name) {
  const auto metadata = node.find("metadata");
  if (metadata == node.end() || !metadata->is_object()) return "";
  const auto found = metadata->find(name);
  return found != metadata->end() && found->is_string() ? found->get<std::string>() : "";
}

// "layer1.0.bn1" of the metadata of its norm: the path of the innermost module, "key,path,class;key,path,class".
std::string layer_of(const Json& node) {
  const std::string stack = text_in(node, "nn_module_stack");
  const std::string inner = stack.substr(stack.rfind(';') == std::string::npos ? 0 : stack.rfind(';') + 1);
  const size_t start = inner.find(',');
  const size_t end = inner.rfind(',');
  return start == std::string::npos || end <= start ? "" : inner.substr(start + 1, end - start - 1);
}

std::string name_of(const Json& node) {
  const auto found = node.find("name");
  return found != node.end() && found->is_string() ? found->get<std::string>() : "";
}

bool is_norm(const std::string& target) {
  return target.find("batch_norm") != std::string::npos && target.find("backward") == std::string::npos;
}

c10::TypePtr without_optional(c10::TypePtr type) {
  while (const auto optional = type->cast<c10::OptionalType>()) type = optional->getElementType();
  return type;
}

template <typename Element>
std::optional<c10::IValue> list_of(const Json& elements) {
  c10::List<Element> list;
  for (const Json& element : elements) list.push_back(element.get<Element>());
  return c10::IValue(std::move(list));
}

using Paths = std::unordered_map<std::string, std::string>;  // dotted names by the names of values

class Reader {
 public:
  Reader(const Json& program, const Tensors& tensors)
      : graph_json_(program.at("graph_module").at("graph")),
        signature_(program.at("graph_module").at("signature")),
        tensors_(tensors),
        graph_(std::make_shared<jit::Graph>()),
        self_(graph_->addInput("self")) {}

  ProgramGraph run() {
    collect_read_names();
    result_.program.module = module_of(signature_, static_tensors());
    self_->setType(result_.program.module.type());
    read_inputs();
    const Json& nodes = graph_json_.at("nodes");
    for (size_t number = 0; number < nodes.size(); ++number) read(nodes[number], number);
    for (const Json& output : graph_json_.at("outputs")) {
      for_each_name(output, [this](const Json& name) { graph_->registerOutput(value(name.get<std::string>())); });
    }
    remove_unread(*graph_);
    result_.program.methods.push_back({"forward", graph_});
    return std::move(result_);
  }

 private:
  void collect_read_names() {
    const auto read = [this](const Json& name) { read_names_.insert(name.get<std::string>()); };
    for (const Json& node : graph_json_.at("nodes")) {
      for (const Json& input : node.at("inputs")) for_each_name(input.at("arg"), read);
    }
    for (const Json& output : graph_json_.at("outputs")) for_each_name(output, read);
  }

  // Those that are the same in every run: the program does not hand on another content for the next one, under whichever name.
  Tensors static_tensors() const {
    std::unordered_set<const void*> changed;
    for (const Json& spec : signature_.at("output_specs")) {
      for (const char* name : {"buffer_name", "parameter_name"}) {
        const bool mutates = kind_of(spec) == "buffer_mutation" || kind_of(spec) == "parameter_mutation";
        if (!mutates || !content_of(spec).contains(name)) continue;
        const auto found = tensors_.find(content_of(spec).at(name).get<std::string>());
        if (found != tensors_.end()) changed.insert(storage_of(found->second));
      }
    }
    Tensors tensors;
    for (const auto& [path, tensor] : tensors_) {
      if (changed.count(storage_of(tensor)) == 0) tensors.emplace(path, tensor);
    }
    return tensors;
  }

  void read_inputs() {
    const Json& specs = signature_.at("input_specs");
    const Json& inputs = graph_json_.at("inputs");
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::string name = only_name(inputs[i]);
      if (name.empty()) continue;
      const std::string path = path_of(specs.at(i));
      if (!path.empty()) paths_[name] = path;
      jit::Value* read = path.empty() ? nullptr : attribute(path);
      if (read == nullptr) {
        read = graph_->addInput();
        result_.inputs.emplace(read->unique(), name);
      }
      read->setType(type_of(name));
      values_[name] = read;
    }
  }

  // The value of a tensor of the module, null where it has none of that name.
  jit::Value* attribute(const std::string& path) {
    const auto [owner, name] = owner_and_name(path);
    jit::Value* module = submodule(owner);
    if (module == nullptr) return nullptr;
    const auto type = module->type()->expect<c10::ClassType>();
    const auto slot = type->findAttributeSlot(name);
    if (!slot || type->getAttribute(*slot)->is_module()) return nullptr;
    return graph_->insertGetAttr(module, name);
  }

  jit::Value* submodule(const std::string& path) {
    if (path.empty()) return self_;
    const auto found = submodules_.find(path);
    if (found != submodules_.end()) return found->second;
    const auto [owner, name] = owner_and_name(path);
    jit::Value* parent = submodule(owner);
    if (parent == nullptr) return submodules_[path] = nullptr;
    const auto type = parent->type()->expect<c10::ClassType>();
    const auto slot = type->findAttributeSlot(name);
    const bool is_module = slot && type->getAttribute(*slot)->is_module();
    return submodules_[path] = is_module ? graph_->insertGetAttr(parent, name) : nullptr;
  }

  jit::Value* value(const std::string& name) const { return values_.at(name); }

  c10::TypePtr type_of(const std::string& name) const {
    const auto has = [&](const char* table) {
      const auto found = graph_json_.find(table);
      return found != graph_json_.end() && found->contains(name);
    };
    if (has("tensor_values")) return tensor_type(graph_json_.at("tensor_values").at(name));
    if (has("sym_int_values")) return c10::IntType::get();
    if (has("sym_float_values")) return c10::FloatType::get();
    if (has("sym_bool_values")) return c10::BoolType::get();
    return c10::AnyType::get();
  }

  // With its sizes, as far as they are numbers: a fold changes none.
  static c10::TypePtr tensor_type(const Json& meta) {
    std::vector<c10::optional<int64_t>> sizes;
    for (const Json& size : meta.at("sizes")) {
      const bool is_number = kind_of(size) == "as_int";
      sizes.push_back(is_number ? c10::optional<int64_t>(content_of(size).get<int64_t>()) : c10::nullopt);
    }
    return c10::TensorType::create(c10::nullopt, c10::nullopt, c10::SymbolicShape(sizes),
                                   c10::VaryingShape<c10::Stride>(sizes.size()), c10::nullopt);
  }

  void read(const Json& node, size_t number) {
    NodeRecord record{number, c10::Symbol(), false, {}, {}, results_of(node)};
    made_list_ = false;
    jit::Node* made = number_node(node, record);
    if (made == nullptr) made = norm_node(node, record);
    if (made == nullptr) made = operator_node(node, record);
    if (made == nullptr) made = opaque_node(node, record);
    if (made->kind() != jit::aten::batch_norm) list_hidden_norms(node, "", paths_);
    const auto [file, line] = place_of(text_in(node, "stack_trace"));
    auto source = line == 0 ? std::make_shared<jit::Source>("") : std::make_shared<jit::Source>("", file, line);
    made->setSourceRange(jit::SourceRange(source, 0, 0));
    record.kind = made->kind();
    for (const jit::Value* input : made->inputs()) record.inputs.push_back(input->unique());
    jit::Node* maker = made;
    if (made_list_) {
      made->output()->setType(c10::ListType::ofTensors());
      maker = graph_->insertNode(graph_->create(jit::prim::ListUnpack, {made->output()}, record.results.size()));
      maker->setSourceRange(made->sourceRange());
    }
    for (size_t i = 0; i < record.results.size(); ++i) {
      const std::string& name = record.results[i];
      if (i >= maker->outputs().size()) break;
      maker->output(i)->setType(name.empty() ? c10::TypePtr(c10::AnyType::get()) : type_of(name));
      if (!name.empty()) values_[name] = maker->output(i);
    }
    result_.records.emplace(source.get(), std::move(record));
    result_.sources.push_back(std::move(source));
  }

  // One name for each result; empty where it is none.
  static std::vector<std::string> results_of(const Json& node) {
    std::vector<std::string> names;
    for (const Json& output : node.at("outputs")) {
      const size_t before = names.size();
      for_each_name(output, [&names](const Json& name) { names.push_back(name.get<std::string>()); });
      if (names.size() == before) names.emplace_back();
    }
    return names;
  }

  jit::Node* number_node(const Json& node, NodeRecord& record) {
    const auto kind = number_operator(node.at("target").get<std::string>());
    if (!kind || record.results.size() != 1) return nullptr;
    std::vector<jit::Value*> inputs;
    for (const Json& input : node.at("inputs")) {
      jit::Value* one = value_of(input.at("arg"), c10::AnyType::get());
      if (one == nullptr) return nullptr;
      inputs.push_back(one);
      record.arguments.push_back(input.at("name").get<std::string>());
    }
    return inserted(*kind, inputs, 1, record, [](const c10::FunctionSchema&) { return true; });
  }

  // Where only its first result is read, as in eval mode.
  jit::Node* norm_node(const Json& node, NodeRecord& record) {
    if (node.at("target") != kDecomposedNorm || record.results.size() != 3) return nullptr;
    if (read_names_.count(record.results[1]) != 0 || read_names_.count(record.results[2]) != 0) return nullptr;
    std::vector<jit::Value*> inputs;
    for (const char* name : {"input", "weight", "bias", "running_mean", "running_var", "", "momentum", "eps", ""}) {
      jit::Value* one = *name == '\0' ? graph_->insertConstant(false) : argument(node, name, nullptr);
      if (one == nullptr) return nullptr;
      inputs.push_back(one);
      record.arguments.emplace_back(name);
    }
    return inserted(jit::aten::batch_norm, inputs, 1, record, [](const c10::FunctionSchema&) { return true; });
  }

  jit::Node* operator_node(const Json& node, NodeRecord& record) {
    const auto target = node.at("target").get<std::string>();
    const bool is_copy = target == "torch.ops.aten.lift_fresh_copy.default";
    const bool is_detach = target == "torch.ops.aten.detach_.default";  // of the gradient, which writes nothing
    const c10::FunctionSchema* schema = schema_of(is_copy     ? "torch.ops.aten.clone.default"
                                                  : is_detach ? "torch.ops.aten.detach.default"
                                                              : target);
    if (schema == nullptr) return nullptr;
    const Json& outputs = node.at("outputs");
    made_list_ = outputs.size() == 1 && outputs[0].contains("as_tensors");
    const auto is_list = [](const Json& output) { return output.contains("as_tensors"); };
    if (!made_list_ && std::any_of(outputs.begin(), outputs.end(), is_list)) return nullptr;
    if (outputs.size() != schema->returns().size() || (!made_list_ && record.results.size() != outputs.size())) return nullptr;
    std::vector<jit::Value*> inputs;
    for (const c10::Argument& one : schema->arguments()) {
      jit::Value* given = argument(node, one.name(), &one);
      if (given == nullptr) return nullptr;
      inputs.push_back(given);
      record.arguments.push_back(one.name());
    }
    // A number in the place of a tensor makes another overload of it, which does the same.
    return inserted(c10::Symbol::fromQualString(schema->name()), inputs, made_list_ ? 1 : outputs.size(), record,
                    [schema](const c10::FunctionSchema& found) {
                      return std::equal(found.arguments().begin(), found.arguments().end(), schema->arguments().begin(),
                                        schema->arguments().end(),
                                        [](const c10::Argument& a, const c10::Argument& b) { return a.name() == b.name(); });
                    });
  }

  template <typename Accepts>
  jit::Node* inserted(c10::Symbol kind, const std::vector<jit::Value*>& inputs, size_t outputs, NodeRecord& record,
                      const Accepts& accepts) {
    jit::Node* node = graph_->insertNode(graph_->create(kind, inputs, outputs));
    const c10::FunctionSchema* schema = node->maybeSchema();
    if (schema != nullptr && schema->returns().size() == outputs && accepts(*schema)) return node;
    node->destroy();
    record.arguments.clear();
    return nullptr;
  }

  jit::Node* opaque_node(const Json& node, NodeRecord& record) {
    made_list_ = false;
    record.is_opaque = true;
    record.arguments.clear();
    std::vector<jit::Value*> inputs;
    for (const Json& input : node.at("inputs")) {
      for_each_name(input.at("arg"), [&](const Json& name) { inputs.push_back(value(name.get<std::string>())); });
    }
    const c10::Symbol kind = opaque_kind(node.at("target").get<std::string>(), may_write(node));
    return graph_->insertNode(graph_->create(kind, inputs, record.results.size()));
  }

  // Whether it, or something in its regions, may write into what it reads.
  static bool may_write(const Json& node) {
    static const std::unordered_set<std::string> regions = {"torch.ops.higher_order.cond", "torch.ops.higher_order.while_loop",
                                                            "torch.ops.higher_order.wrap_with_autocast",
                                                            "torch.ops.higher_order.wrap_with_set_grad_enabled"};
    const auto target = node.at("target").get<std::string>();
    if (number_operator(target)) return false;
    const Json& inputs = node.at("inputs");
    if (regions.count(target) != 0) {
      return std::any_of(inputs.begin(), inputs.end(), [](const Json& input) {
        if (!input.at("arg").contains("as_graph")) return false;
        const Json& nodes = input.at("arg").at("as_graph").at("graph").at("nodes");
        return std::any_of(nodes.begin(), nodes.end(), may_write);
      });
    }
    const c10::FunctionSchema* schema = schema_of(target);
    return schema == nullptr || schema->is_mutable() || (target.find("_norm") != std::string::npos && writes_statistics(node));
  }

  // No schema says so.
  static bool writes_statistics(const Json& norm) {
    const Json no{{"as_bool", false}};
    const Json& inputs = norm.at("inputs");
    const auto says_no = [&no](const Json& input) {
      return (input.at("name") == "training" || input.at("name") == "use_input_stats") && input.at("arg") == no;
    };
    const bool has_statistics = norm.at("target").get<std::string>().find("batch_norm") != std::string::npos ||
                                norm.at("target").get<std::string>().find("instance_norm") != std::string::npos;
    return has_statistics && norm.at("target") != kDecomposedNorm && std::none_of(inputs.begin(), inputs.end(), says_no);
  }

  // Of a node that is no norm to the fold, and of the regions in it, where values have names of their own.
  void list_hidden_norms(const Json& node, const std::string& region, const Paths& paths) {
    const auto target = node.at("target").get<std::string>();
    if (is_norm(target)) result_.hidden.push_back(hidden_norm(node, target, region, paths));
    for (const Json& input : node.at("inputs")) {
      if (!input.at("arg").contains("as_graph")) continue;
      const Json& graph = input.at("arg").at("as_graph").at("graph");
      const Paths inner_paths = paths_in_region(node, graph, paths);
      for (const Json& inner : graph.at("nodes")) list_hidden_norms(inner, target.substr(target.rfind('.') + 1), inner_paths);
    }
  }

  // What stands behind the last graph among the arguments of a region are the operands of its graphs.
  static Paths paths_in_region(const Json& region, const Json& graph, const Paths& paths) {
    std::vector<std::string> operands;
    for (const Json& input : region.at("inputs")) {
      if (input.at("arg").contains("as_graph")) operands.clear();
      for_each_name(input.at("arg"), [&operands](const Json& name) { operands.push_back(name.get<std::string>()); });
    }
    Paths inside;
    for (size_t i = 0; i < operands.size() && operands.size() == graph.at("inputs").size(); ++i) {
      const auto found = paths.find(operands[i]);
      if (found == paths.end()) continue;
      for_each_name(graph.at("inputs")[i], [&](const Json& name) { inside[name.get<std::string>()] = found->second; });
    }
    return inside;
  }

  static KeptNorm hidden_norm(const Json& node, const std::string& target, const std::string& region, const Paths& paths) {
    bool trains = target.find("legit_functional") != std::string::npos;
    std::string layer = layer_of(node);
    for (const Json& input : node.at("inputs")) {
      if (input.at("name") == "training") trains = input.at("arg") == Json{{"as_bool", true}};
      if (input.at("name") != "running_mean" || !input.at("arg").contains("as_tensor")) continue;
      const auto path = paths.find(input.at("arg").at("as_tensor").at("name").get<std::string>());
      if (path != paths.end()) layer = owner_and_name(path->second).first;
    }
    const auto [file, line] = place_of(text_in(node, "stack_trace"));
    KeptNorm norm;
    norm.name = layer.empty() ? name_of(node) : layer;
    norm.reason = trains           ? Reason::norm_in_training_mode
                  : region.empty() ? Reason::no_rule_for_operator
                                   : Reason::value_from_other_block;
    norm.detail = trains           ? "it normalizes with the statistics of each batch"
                  : region.empty() ? target
                                   : fmt::format("it is inside of {}, which stays as it is", region);
    if (line != 0) norm.source = fmt::format("{}:{}", file.substr(file.rfind('/') + 1), line);
    return norm;
  }

  // The value of an argument of a node, or of its default; null where there is none that TorchScript has.
  jit::Value* argument(const Json& node, const std::string& name, const c10::Argument* schema) {
    for (const Json& input : node.at("inputs")) {
      if (input.at("name") == name)
        return value_of(input.at("arg"), schema != nullptr ? schema->type() : c10::AnyType::get(), schema);
    }
    const bool has_default = schema != nullptr && schema->default_value().has_value();
    return has_default ? constant(c10::IValue(*schema->default_value())) : nullptr;
  }

  jit::Value* constant(const std::optional<c10::IValue>& content) {
    if (!content) return nullptr;
    const auto made = jit::tryInsertConstant(*graph_, *content);
    return made ? *made : nullptr;
  }

  jit::Value* value_of(const Json& argument, const c10::TypePtr& type, const c10::Argument* schema = nullptr) {
    const std::string& kind = kind_of(argument);
    const Json& content = content_of(argument);
    if (kind == "as_tensor" || kind == "as_custom_obj") return value(content.at("name").get<std::string>());
    if (kind == "as_sym_int" || kind == "as_sym_float" || kind == "as_sym_bool") return symbol(content);
    if (kind == "as_optional_tensor") return optional_tensor(content);
    const c10::TypePtr plain = without_optional(type);
    if (kind == "as_tensors")
      return list(content, c10::TensorType::get(), [this](const Json& one) { return value(one.at("name")); });
    if (kind == "as_sym_ints") return list(content, c10::IntType::get(), [this](const Json& one) { return symbol(one); });
    if (kind == "as_optional_tensors") {
      return list(content, c10::OptionalType::ofTensor(), [this](const Json& one) { return optional_tensor(one); });
    }
    return constant(content_of_constant(kind, content, plain, schema));
  }

  jit::Value* symbol(const Json& content) {
    if (content.contains("as_name")) return value(content.at("as_name").get<std::string>());
    const Json& number = content_of(content);
    if (number.is_boolean()) return constant(c10::IValue(number.get<bool>()));
    if (number.is_number_integer()) return constant(c10::IValue(number.get<int64_t>()));
    if (number.is_number()) return constant(c10::IValue(number.get<double>()));
    return nullptr;
  }

  jit::Value* optional_tensor(const Json& content) {
    if (content.contains("as_tensor")) return value(content.at("as_tensor").at("name").get<std::string>());
    return constant(c10::IValue());
  }

  template <typename Make>
  jit::Value* list(const Json& elements, const c10::TypePtr& type, const Make& make) {
    std::vector<jit::Value*> values;
    for (const Json& element : elements) {
      values.push_back(make(element));
      if (values.back() == nullptr || !values.back()->type()->isSubtypeOf(*type)) return nullptr;
    }
    return graph_->insertNode(graph_->createList(type, values))->output();
  }

  // Numbers are written as Python has them: a 1 may stand for 1.0, or for [1, 1].
  static std::optional<c10::IValue> content_of_constant(const std::string& kind, const Json& content, const c10::TypePtr& type,
                                                        const c10::Argument* schema) {
    if (kind == "as_none") return c10::IValue();
    if (kind == "as_bool") return c10::IValue(content.get<bool>());
    if (kind == "as_string") return c10::IValue(content.get<std::string>());
    if (kind == "as_float") return content.is_number() ? std::optional<c10::IValue>(content.get<double>()) : std::nullopt;
    if (kind == "as_int") {
      const auto number = content.get<int64_t>();
      if (type->kind() == c10::TypeKind::FloatType) return c10::IValue(static_cast<double>(number));
      if (type->kind() != c10::TypeKind::ListType) return c10::IValue(number);
      const bool has_length = schema != nullptr && schema->N().has_value();
      return c10::IValue(std::vector<int64_t>(has_length ? *schema->N() : 1, number));
    }
    if (kind == "as_ints") {
      const bool floats = type->kind() == c10::TypeKind::ListType && type->containedType(0)->kind() == c10::TypeKind::FloatType;
      return floats ? list_of<double>(content) : list_of<int64_t>(content);
    }
    if (kind == "as_floats") return list_of<double>(content);
    if (kind == "as_bools") return list_of<bool>(content);
    if (kind == "as_device") return device_of(content);
    if (kind == "as_scalar_type") return number_in(dtype_of(content.get<int64_t>()));
    if (kind == "as_memory_format") return number_in(memory_format_of(content.get<int64_t>()));
    if (kind == "as_layout") return number_in(layout_of(content.get<int64_t>()));
    return std::nullopt;
  }

  template <typename Enum>
  static std::optional<c10::IValue> number_in(std::optional<Enum> one) {
    if (!one) return std::nullopt;
    return c10::IValue(static_cast<int64_t>(*one));
  }

  static std::optional<c10::IValue> device_of(const Json& content) try {
    const auto index = content.find("index");
    const bool numbered = index != content.end() && index->is_number();
    const auto type = content.at("type").get<std::string>();
    return c10::IValue(at::Device(numbered ? fmt::format("{}:{}", type, index->get<int64_t>()) : type));
  } catch (const c10::Error&) {
    return std::nullopt;
  }

  const Json& graph_json_;
  const Json& signature_;
  const Tensors& tensors_;
  std::shared_ptr<jit::Graph> graph_;
  jit::Value* self_;
  ProgramGraph result_{{jit::Module(), {}, {}}, {}, {}, {}, {}};
  std::unordered_map<std::string, jit::Value*> values_;
  std::unordered_map<std::string, jit::Value*> submodules_;
  std::unordered_set<std::string> read_names_;
  Paths paths_;             // of the inputs that are tensors of the module
  bool made_list_ = false;  // whether the node that was made last makes a list
};

}  // namespace

std::string path_of(const Json& input_spec) {
  const std::string& kind = kind_of(input_spec);
  const Json& content = content_of(input_spec);
  if (kind == "parameter") return content.at("parameter_name").get<std::string>();
  if (kind == "buffer") return content.at("buffer_name").get<std::string>();
  if (kind == "tensor_constant") return content.at("tensor_constant_name").get<std::string>();
  return "";
}

jit::Module module_of(const Json& signature, const Tensors& tensors) {
  Modules modules;
  for (const Json& spec : signature.at("input_specs")) {
    const auto found = tensors.find(path_of(spec));
    if (found != tensors.end() && found->second.defined()) modules.add(found->first, found->second, kind_of(spec) != "parameter");
  }
  return modules.root();
}

Json parsed_program(const std::string& text) {
  constexpr int64_t known = 8;
  Json program = Json::parse(text);
  const Json& version = program.at("schema_version");
  const auto major = version.at("major").get<int64_t>();
  if (major != known) {
    throw Error(fmt::format(
        "the program is written in schema {}.{} of torch.export, and this reads {}; export it with a PyTorch that writes that",
        major, version.at("minor").get<int64_t>(), known));
  }
  inline_grad_regions(program);
  return program;
}

ProgramGraph read_graph(const Json& program, const Tensors& tensors) {
  return Reader(program, tensors).run();
}

}  // namespace bnfold::exported
