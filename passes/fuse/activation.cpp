#include "fuse/activation.h"

#include <unordered_map>

#include "graph/constants.h"
#include "graph/operators.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

std::optional<Activation> with_numbers(const char* name, const jit::Node* node, std::initializer_list<size_t> inputs) {
  Activation activation{name};
  for (const size_t input : inputs) {
    const auto number = constant_number(node->input(input));
    if (!number) return std::nullopt;
    activation.numbers.push_back(*number);
  }
  return activation;
}

// oneDNN takes no lower bound above the upper one, which clamp gives everywhere.
std::optional<Activation> between_bounds(const jit::Node* node) {
  auto activation = with_numbers("hardtanh", node, {1, 2});
  return activation && activation->numbers[0] <= activation->numbers[1] ? activation : std::nullopt;
}

}  // namespace

std::optional<Activation> activation_of(const jit::Node* node) {
  static const std::unordered_map<std::string, std::string> without_numbers = {
      {"relu", "relu"},  {"sigmoid", "sigmoid"},     {"tanh", "tanh"},
      {"silu", "swish"}, {"hardswish", "hardswish"}, {"hardsigmoid", "hardsigmoid"}};
  if (!node->kind().is_aten()) return std::nullopt;
  const auto found = without_numbers.find(node->kind().toUnqualString());
  if (found != without_numbers.end()) return Activation{found->second};
  if (is_one_of(node, {"relu6"})) return Activation{"hardtanh", {0, 6}};
  if (is_one_of(node, {"hardtanh", "clamp"})) return between_bounds(node);
  if (is_one_of(node, {"leaky_relu"})) return with_numbers("leaky_relu", node, {1});
  if (!is_one_of(node, {"gelu"})) return std::nullopt;
  const auto algorithm = constant_string(node->namedInput("approximate"));
  return algorithm ? std::optional<Activation>(Activation{"gelu", {}, algorithm}) : std::nullopt;
}

jit::Value* insert_numbers(jit::Graph& graph, const std::vector<double>& numbers) {
  std::vector<jit::Value*> values;
  values.reserve(numbers.size());
  for (const double number : numbers) values.push_back(graph.insertConstant(number));
  return graph.insertNode(graph.createList(c10::OptionalType::create(c10::NumberType::get()), values))->output();
}

void append_activation(const Activation& activation, jit::Graph& graph, std::vector<jit::Value*>& arguments) {
  jit::Value* algorithm = graph.insertConstant(activation.algorithm ? c10::IValue(*activation.algorithm) : c10::IValue());
  arguments.insert(arguments.end(),
                   {graph.insertConstant(activation.name), insert_numbers(graph, activation.numbers), algorithm});
}

}  // namespace bnfold
