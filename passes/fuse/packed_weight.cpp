#include "fuse/packed_weight.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <algorithm>
#include <cctype>

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr const char* kReorder = "mkldnn::_reorder_convolution_weight";

// The attributes of the class, in the order of its state, with the weight as it is saved first.
const std::vector<std::pair<const char*, c10::TypePtr>>& attributes() {
  static const std::vector<std::pair<const char*, c10::TypePtr>> all = {
      {"weight", c10::TensorType::get()},    {"padding", c10::ListType::ofInts()}, {"stride", c10::ListType::ofInts()},
      {"dilation", c10::ListType::ofInts()}, {"groups", c10::IntType::get()},      {"input_size", c10::ListType::ofInts()},
      {"training", c10::BoolType::get()}};
  return all;
}

constexpr const char* kGetState = R"(graph(%self):
  %packed : Tensor = prim::GetAttr[name="weight"](%self)
  %none : NoneType = prim::Constant()
  %weight : Tensor = aten::to_dense(%packed, %none, %none)
  %padding : int[] = prim::GetAttr[name="padding"](%self)
  %stride : int[] = prim::GetAttr[name="stride"](%self)
  %dilation : int[] = prim::GetAttr[name="dilation"](%self)
  %groups : int = prim::GetAttr[name="groups"](%self)
  %input_size : int[] = prim::GetAttr[name="input_size"](%self)
  %training : bool = prim::GetAttr[name="training"](%self)
  %state : (Tensor, int[], int[], int[], int, int[], bool) = prim::TupleConstruct(%weight, %padding, %stride, %dilation, %groups, %input_size, %training)
  return (%state))";

constexpr const char* kSetState = R"(graph(%self, %state : (Tensor, int[], int[], int[], int, int[], bool)):
  %weight : Tensor, %padding : int[], %stride : int[], %dilation : int[], %groups : int, %input_size : int[], %training : bool = prim::TupleUnpack(%state)
  %packed : Tensor = mkldnn::_reorder_convolution_weight(%weight, %padding, %stride, %dilation, %groups, %input_size)
  prim::SetAttr[name="weight"](%self, %packed)
  prim::SetAttr[name="padding"](%self, %padding)
  prim::SetAttr[name="stride"](%self, %stride)
  prim::SetAttr[name="dilation"](%self, %dilation)
  prim::SetAttr[name="groups"](%self, %groups)
  prim::SetAttr[name="input_size"](%self, %input_size)
  prim::SetAttr[name="training"](%self, %training)
  %none : NoneType = prim::Constant()
  return (%none))";

void define(const c10::ClassTypePtr& type, jit::CompilationUnit& unit, const char* name, const char* source) {
  const auto graph = std::make_shared<jit::Graph>();
  jit::parseIR(source, graph.get());
  graph->inputs().at(0)->setType(type);
  type->addMethod(unit.create_function(c10::QualifiedName(*type->name(), name), graph));
}

at::Tensor packed(const at::Tensor& weight, const ConvGeometry& geometry, const std::vector<int64_t>& input_size) {
  static const c10::OperatorHandle reorder = c10::Dispatcher::singleton().findSchemaOrThrow(kReorder, "");
  jit::Stack stack = {weight.contiguous(), geometry.padding, geometry.stride, geometry.dilation, geometry.groups, input_size};
  reorder.callBoxed(stack);
  return stack.front().toTensor();
}

// "layer1.0.conv1" as the name of an attribute that `module` does not have yet.
std::string attribute_name(const jit::Module& module, const std::string& path) {
  std::string name = path;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char letter) { return std::isalnum(letter) == 0; }, '_');
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name.front())) != 0) name.insert(0, "layer_");
  std::string free = name;
  for (int number = 1; module.hasattr(free) || module.find_method(free); ++number) free = fmt::format("{}_{}", name, number);
  return free;
}

}  // namespace

bool can_pack_weights() {
  const auto has = [](const char* name, const char* overload) {
    return c10::Dispatcher::singleton().findSchema({name, overload}).has_value();
  };
  return at::hasMKLDNN() && has(kReorder, "") && has("mkldnn::_convolution_pointwise", "") &&
         has("mkldnn::_convolution_pointwise", "binary") && has("mkldnn::_convolution_pointwise_", "binary");
}

void WeightPacker::define_class() {
  const auto unit = module_._ivalue()->compilation_unit();
  const jit::Module first("__torch__.bnfold.PackedConvWeight", unit, /*shouldMangle=*/true);
  class_ = first.type();
  for (const auto& [name, type] : attributes()) class_->addAttribute(name, type);
  define(class_, *unit, "__getstate__", kGetState);
  define(class_, *unit, "__setstate__", kSetState);
}

jit::Value* WeightPacker::add(const std::string& name, const at::Tensor& weight, const ConvGeometry& geometry,
                              const std::vector<int64_t>& input_size, jit::Node* node) {
  if (!class_) define_class();
  jit::Module holder(module_._ivalue()->compilation_unit(), class_);
  const std::vector<c10::IValue> values = {packed(weight, geometry, input_size),
                                           geometry.padding,
                                           geometry.stride,
                                           geometry.dilation,
                                           geometry.groups,
                                           input_size,
                                           false};
  for (size_t i = 0; i < values.size(); ++i) holder.setattr(attributes()[i].first, values[i]);
  const std::string attribute = attribute_name(module_, name);
  module_.register_module(attribute, holder);
  jit::Graph* graph = node->owningGraph();
  const jit::WithInsertPoint before(node);
  jit::Value* submodule = graph->insertGetAttr(graph->inputs().at(0), attribute);
  return graph->insertGetAttr(submodule, "weight");
}

}  // namespace bnfold
