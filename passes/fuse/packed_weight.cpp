#include "fuse/packed_weight.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "graph/graph_walk.h"
#include "module/free_attribute.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr const char* kReorderConv = "mkldnn::_reorder_convolution_weight";
constexpr const char* kReorderTransposedConv = "mkldnn::_reorder_convolution_transpose_weight";
constexpr const char* kReorderLinear = "mkldnn::_reorder_linear_weight";

// What PackedClass::in_ordinary_order may be. A transposed convolution is packed with its first two dimensions exchanged.
constexpr const char* kAsItIs = "  %weight : Tensor = aten::alias(%dense)\n";
constexpr const char* kTransposed = R"(  %first : int = prim::Constant[value=0]()
  %second : int = prim::Constant[value=1]()
  %exchanged : Tensor = aten::transpose(%dense, %first, %second)
  %contiguous : int = prim::Constant[value=0]()
  %weight : Tensor = aten::contiguous(%exchanged, %contiguous)
)";

void define(const c10::ClassTypePtr& type, jit::CompilationUnit& unit, const char* name, const std::string& source) {
  const auto graph = std::make_shared<jit::Graph>();
  jit::parseIR(source, graph.get());
  graph->inputs().at(0)->setType(type);
  type->addMethod(unit.create_function(c10::QualifiedName(*type->name(), name), graph));
}

// What an operator without arguments says; no where there is none.
bool answers_yes(const char* question) {
  const auto asks = c10::Dispatcher::singleton().findSchema({question, ""});
  if (!asks) return false;
  jit::Stack stack;
  asks->callBoxed(stack);
  return stack.front().toBool();
}

// What `reorder`, an operator, makes of a weight; `arguments` are its others.
at::Tensor reordered(const char* reorder, const at::Tensor& weight, const std::vector<c10::IValue>& arguments) {
  const c10::OperatorHandle reorders = c10::Dispatcher::singleton().findSchemaOrThrow(reorder, "");
  jit::Stack stack = {weight.contiguous()};
  stack.insert(stack.end(), arguments.begin(), arguments.end());
  reorders.callBoxed(stack);
  return stack.front().toTensor();
}

// "layer1.0.conv1" as the name of an attribute that `module` does not have yet.
std::string attribute_name(const jit::Module& module, const std::string& path) {
  std::string name = path;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char letter) { return std::isalnum(letter) == 0; }, '_');
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name.front())) != 0) name.insert(0, "layer_");
  return free_attribute(module, name);
}

// The node that runs `graph` beside `main`.
jit::Node* task_of(const jit::Graph& main, const jit::Graph& graph) {
  jit::Node* task = nullptr;
  for_each_node(main.block(), [&](jit::Node* node) {
    if (node->kind() == jit::prim::fork && node->g(jit::attr::Subgraph).get() == &graph) task = node;
  });
  TORCH_INTERNAL_ASSERT(task != nullptr);
  return task;
}

}  // namespace

bool can_pack_weights() {
  const auto has = [](const char* name, const char* overload) {
    return c10::Dispatcher::singleton().findSchema({name, overload}).has_value();
  };
  return at::hasMKLDNN() && has(kReorderConv, "") && has(kReorderLinear, "") && has("mkldnn::_convolution_pointwise", "") &&
         has(kReorderTransposedConv, "") && has("mkldnn::_convolution_transpose_pointwise", "") &&
         has("mkldnn::_convolution_pointwise", "binary") && has("mkldnn::_convolution_pointwise_", "binary") &&
         has("mkldnn::_linear_pointwise", "");
}

bool can_be_packed(const at::Tensor& weight) {
  if (!weight.is_cpu() || weight.layout() != at::kStrided) return false;
  const at::ScalarType dtype = weight.scalar_type();
  return dtype == at::kFloat || (dtype == at::kBFloat16 && answers_yes("mkldnn::_is_mkldnn_bf16_supported")) ||
         (dtype == at::kHalf && answers_yes("mkldnn::_is_mkldnn_fp16_supported"));
}

// A class that holds a packed weight, and what its order depends on: the arguments of the operator that orders it.
struct WeightPacker::PackedClass {
  const char* name;
  const char* reorder;
  std::vector<std::pair<const char*, c10::TypePtr>> arguments;
  const char* in_ordinary_order;  // statements that make %weight of %dense, the packed weight without its order

  // "(Tensor, int[], int, bool)": the weight, the arguments, and `training`
  std::string state() const {
    std::string types = "Tensor";
    for (const auto& argument : arguments) types += ", " + argument.second->str();
    return fmt::format("({}, bool)", types);
  }

  // `form` with the name and the type of each argument
  std::string for_each_argument(std::string_view form) const {
    std::string text;
    for (const auto& [argument, type] : arguments) text += fmt::format(fmt::runtime(form), argument, type->str());
    return text;
  }

  std::string get_state() const {
    return fmt::format(R"(graph(%self):
  %packed : Tensor = prim::GetAttr[name="weight"](%self)
  %none : NoneType = prim::Constant()
  %dense : Tensor = aten::to_dense(%packed, %none, %none)
{}{}  %training : bool = prim::GetAttr[name="training"](%self)
  %state : {} = prim::TupleConstruct(%weight{}, %training)
  return (%state))",
                       in_ordinary_order, for_each_argument("  %{0} : {1} = prim::GetAttr[name=\"{0}\"](%self)\n"), state(),
                       for_each_argument(", %{0}"));
  }

  std::string set_state() const {
    return fmt::format(R"(graph(%self, %state : {0}):
  %weight : Tensor{1}, %training : bool = prim::TupleUnpack(%state)
  %packed : Tensor = {2}(%weight{3})
  prim::SetAttr[name="weight"](%self, %packed)
{4}  prim::SetAttr[name="training"](%self, %training)
  %none : NoneType = prim::Constant()
  return (%none))",
                       state(), for_each_argument(", %{0} : {1}"), reorder, for_each_argument(", %{0}"),
                       for_each_argument("  prim::SetAttr[name=\"{0}\"](%self, %{0})\n"));
  }
};

const WeightPacker::PackedClass& WeightPacker::of_convs() {
  const c10::TypePtr ints = c10::ListType::ofInts();
  static const PackedClass kind = {
      "__torch__.bnfold.PackedConvWeight",
      kReorderConv,
      {{"padding", ints}, {"stride", ints}, {"dilation", ints}, {"groups", c10::IntType::get()}, {"input_size", ints}},
      kAsItIs};
  return kind;
}

const WeightPacker::PackedClass& WeightPacker::of_transposed_convs() {
  const c10::TypePtr ints = c10::ListType::ofInts();
  static const PackedClass kind = {"__torch__.bnfold.PackedTransposedConvWeight",
                                   kReorderTransposedConv,
                                   {{"padding", ints},
                                    {"output_padding", ints},
                                    {"stride", ints},
                                    {"dilation", ints},
                                    {"groups", c10::IntType::get()},
                                    {"input_size", ints}},
                                   kTransposed};
  return kind;
}

const WeightPacker::PackedClass& WeightPacker::of_linears() {
  static const PackedClass kind = {
      "__torch__.bnfold.PackedLinearWeight", kReorderLinear, {{"rows", c10::IntType::get()}}, kAsItIs};
  return kind;
}

c10::ClassTypePtr WeightPacker::defined(const PackedClass& kind) {
  c10::ClassTypePtr& type = classes_[&kind];
  if (type) return type;
  const auto unit = module_._ivalue()->compilation_unit();
  type = jit::Module(kind.name, unit, /*shouldMangle=*/true).type();
  type->addAttribute("weight", c10::TensorType::get());
  for (const auto& [name, of] : kind.arguments) type->addAttribute(name, of);
  type->addAttribute("training", c10::BoolType::get());
  define(type, *unit, "__getstate__", kind.get_state());
  define(type, *unit, "__setstate__", kind.set_state());
  return type;
}

jit::Value* WeightPacker::add_conv(const std::string& name, const at::Tensor& weight, const ConvGeometry& geometry,
                                   const std::vector<int64_t>& input_size, jit::Node* node) {
  const auto& [stride, padding, dilation, groups, output_padding] = geometry;
  if (!geometry.transposed()) return add(of_convs(), name, weight, {padding, stride, dilation, groups, input_size}, node);
  return add(of_transposed_convs(), name, weight, {padding, output_padding, stride, dilation, groups, input_size}, node);
}

jit::Value* WeightPacker::add_linear(const std::string& name, const at::Tensor& weight, int64_t rows, jit::Node* node) {
  return add(of_linears(), name, weight, {rows}, node);
}

jit::Value* WeightPacker::add(const PackedClass& kind, const std::string& name, const at::Tensor& weight,
                              const std::vector<c10::IValue>& arguments, jit::Node* node) {
  jit::Module holder(module_._ivalue()->compilation_unit(), defined(kind));
  holder.setattr("weight", reordered(kind.reorder, weight, arguments));
  for (size_t i = 0; i < arguments.size(); ++i) holder.setattr(kind.arguments[i].first, arguments[i]);
  holder.setattr("training", false);
  const std::string attribute = attribute_name(module_, name);
  module_.register_module(attribute, holder);
  return weight_before(node, attribute);
}

// A task has no self: what it reads of the module comes in with its other inputs.
jit::Value* WeightPacker::weight_before(jit::Node* node, const std::string& attribute) {
  jit::Graph* graph = node->owningGraph();
  const jit::WithInsertPoint before(node);
  if (graph == &main_) return graph->insertGetAttr(graph->insertGetAttr(graph->inputs().at(0), attribute), "weight");
  jit::Node* task = task_of(main_, *graph);
  task->addInput(weight_before(task, attribute));
  return graph->addInput()->setType(c10::TensorType::get());
}

}  // namespace bnfold
