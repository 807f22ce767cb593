#include "ir_program.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/ir/irparser.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>

#include <algorithm>
#include <unordered_map>

#include "graph/graph_walk.h"

namespace bnfold::fuzz {

namespace jit = torch::jit;

namespace {

at::Tensor make_tensor(const TensorSpec& spec, at::Generator& generator) {
  const auto uniform = [&](double from, double to) {
    return at::rand(spec.sizes, generator, at::kDouble).mul_(to - from).add_(from);
  };
  switch (spec.content) {
    case Content::scales: {
      const at::Tensor sign = at::where(uniform(0, 1).lt(0.5), -1.0, 1.0);
      return (uniform(0.5, 1.5) * sign).masked_fill_(uniform(0, 1).lt(0.12), 0);
    }
    case Content::shifts:
      return uniform(-1, 1);
    case Content::variances:
      return uniform(0.25, 4);
    default:
      return at::randn(spec.sizes, generator, at::kDouble);
  }
}

// The submodule at the head of the dotted `path`, made where it is missing, and the name behind it.
std::pair<jit::Module, std::string> place_of(jit::Module module, const std::string& path) {
  size_t start = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', start)) {
    const std::string name = path.substr(start, dot - start);
    if (!module.hasattr(name)) {
      module.register_module(name,
                             jit::Module("__torch__.FuzzedLayer", module._ivalue()->compilation_unit(), /*shouldMangle=*/true));
    }
    module = module.attr(name).toModule();
    start = dot + 1;
  }
  return {module, path.substr(start)};
}

// The text has no class types.
void set_module_types(jit::Graph& graph, const jit::Module& module) {
  graph.inputs().at(0)->setType(module.type());
  for_each_node(graph.block(), [](jit::Node* node) {
    if (node->kind() != jit::prim::GetAttr) return;
    if (const auto type = node->input()->type()->cast<c10::ClassType>()) {
      const auto attribute = type->getAttribute(node->s(jit::attr::name));
      if (attribute->cast<c10::ClassType>()) node->output()->setType(attribute);
    }
  });
}

std::string literal(const c10::IValue& value) {
  if (value.isInt()) return fmt::format("int64_t{{{}}}", value.toInt());
  if (value.isDouble()) return fmt::format("{}", value.toDouble());
  if (value.isBool()) return value.toBool() ? "true" : "false";
  if (value.isIntList()) return fmt::format("std::vector<int64_t>{{{}}}", fmt::join(value.toIntVector(), ", "));
  return "c10::IValue()";
}

std::string literal(const TensorSpec& spec) {
  static const std::unordered_map<Content, const char*> names = {
      {Content::values, "values"}, {Content::scales, "scales"}, {Content::shifts, "shifts"}, {Content::variances, "variances"}};
  return fmt::format("{{Content::{}, {{{}}}}}", names.at(spec.content), fmt::join(spec.sizes, ", "));
}

}  // namespace

Inputs make_inputs(const IrProgram& program, int64_t larger) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(program.seed + 1 + larger);
  Inputs inputs;
  for (TensorSpec spec : program.inputs) {
    if (spec.sizes.size() > 1 && spec.content == Content::values) spec.sizes[0] += larger;
    const auto alike = std::find_if(inputs.begin(), inputs.end(), [&](const c10::IValue& other) {
      return program.shares_inputs && other.toTensor().sizes() == at::IntArrayRef(spec.sizes);
    });
    inputs.push_back(alike != inputs.end() ? *alike : make_tensor(spec, generator));
  }
  return inputs;
}

jit::Module make_module(const IrProgram& program) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(program.seed);
  jit::Module module("__torch__.Fuzzed", std::make_shared<jit::CompilationUnit>(), /*shouldMangle=*/true);
  for (const TensorAttribute& attribute : program.tensors) {
    auto [owner, name] = place_of(module, attribute.path);
    owner.register_parameter(name, make_tensor(attribute.tensor, generator), attribute.is_buffer);
  }
  for (const PlainAttribute& attribute : program.plain) {
    auto [owner, name] = place_of(module, attribute.path);
    owner.register_attribute(name, attribute.value.type(), attribute.value);
  }
  const auto graph = std::make_shared<jit::Graph>();
  jit::parseIR(program.graph, graph.get());
  set_module_types(*graph, module);
  graph->lint();
  auto* function =
      module._ivalue()->compilation_unit()->create_function(c10::QualifiedName(*module.type()->name(), "forward"), graph);
  module.type()->addMethod(function);
  return module;
}

std::shared_ptr<jit::Graph> with_constants(const jit::Module& original) {
  const jit::Module module = original.deepcopy();
  auto graph = module.get_method("forward").graph()->copy();
  bool assigns = false;
  for_each_node(graph->block(), [&assigns](const jit::Node* node) { assigns |= node->kind() == jit::prim::SetAttr; });
  if (assigns) return nullptr;
  std::unordered_map<const jit::Value*, c10::IValue> known = {{graph->inputs().at(0), module._ivalue()}};
  std::vector<jit::Node*> reads;
  for_each_node(graph->block(), [&](jit::Node* node) {
    if (node->kind() != jit::prim::GetAttr) return;
    reads.push_back(node);
    const c10::IValue value = known.at(node->input()).toObject()->getAttr(node->s(jit::attr::name));
    known.emplace(node->output(), value);
    if (value.isModule()) return;
    const jit::WithInsertPoint before(node);
    jit::Value* constant = graph->insertConstant(value.isTensor() ? c10::IValue(value.toTensor().detach()) : value);
    if (node->output()->hasDebugName()) constant->setDebugName(node->output()->debugName() + ".constant");
    node->output()->replaceAllUsesWith(constant);
  });
  for (auto node = reads.rbegin(); node != reads.rend(); ++node) (*node)->destroy();
  graph->eraseInput(0);
  jit::Node* output = graph->outputs().at(0)->node();
  if (output->kind() == jit::prim::TupleConstruct && output->output()->uses().size() == 1) {
    graph->eraseOutput(0);
    for (jit::Value* element : output->inputs()) graph->registerOutput(element);
    output->destroy();
  }
  return graph;
}

std::string as_code(const IrProgram& program) {
  std::string code = "IrProgram program;\n";
  for (const TensorAttribute& attribute : program.tensors) {
    code += fmt::format("program.tensors.push_back({{\"{}\", {}, {}}});\n", attribute.path, literal(attribute.tensor),
                        attribute.is_buffer ? "/*is_buffer=*/true" : "/*is_buffer=*/false");
  }
  for (const PlainAttribute& attribute : program.plain) {
    code += fmt::format("program.plain.push_back({{\"{}\", {}}});\n", attribute.path, literal(attribute.value));
  }
  for (const TensorSpec& input : program.inputs) code += fmt::format("program.inputs.push_back({});\n", literal(input));
  code += fmt::format("program.knows_ranks = {};\nprogram.shares_inputs = {};\nprogram.seed = {};\n", program.knows_ranks,
                      program.shares_inputs, program.seed);
  return code + fmt::format("program.graph = R\"({})\";\n", program.graph);
}

}  // namespace bnfold::fuzz
