// A straight piece of a graph, taken out of it: calls of LibTorch's operators, which read values and weights.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <variant>
#include <vector>

#include "onednn/description.h"

namespace bnfold::onednn {

struct ValueAt {
  size_t number;  // of an input, or behind those of the result of a call
};
struct ListOfValues {
  std::vector<size_t> numbers;
};
struct WeightAt {
  size_t number;
};
using CallArgument = std::variant<ValueAt, ListOfValues, WeightAt, c10::IValue>;

struct Call {
  c10::OperatorHandle op;
  std::vector<CallArgument> arguments;  // one for each of the schema

  // By the name in the schema. Throws c10::Error where there is none.
  const CallArgument& named(const char* name) const;
  bool has(const char* name) const { return op.schema().argumentIndexWithName(name).has_value(); }
};

struct Steps {
  size_t inputs;
  std::vector<Call> calls;  // each makes one value
  std::vector<size_t> outputs;
  std::vector<WeightPtr> weights;

  // Calls one operator after the other.
  std::vector<at::Tensor> run(const std::vector<at::Tensor>& tensors) const;

  // Everything but the weights, as JSON. `read` throws c10::Error for an operator that this LibTorch does not have.
  std::string text() const;
  static Steps read(const std::string& text, std::vector<WeightPtr> weights);
};

// A weight in its ordinary order.
at::Tensor tensor_of(const Weight& weight);
WeightPtr weight_of(const at::Tensor& tensor);

// Whether a constant can be written into the text.
bool can_be_written(const c10::IValue& constant);

}  // namespace bnfold::onednn
