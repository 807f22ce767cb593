// What a network computes, step by step, for inputs of known sizes. It knows neither oneDNN nor LibTorch.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "onednn/weight.h"

namespace bnfold::onednn {

enum class Function { relu, clip, swish, gelu_erf, gelu_tanh, hardswish, hardsigmoid, logistic, tanh };

// relu: alpha is the slope below 0. clip: between alpha and beta. The others have no numbers.
struct Elementwise {
  Function function;
  float alpha = 0;
  float beta = 0;
};

enum class Combination { add, multiply, maximum, minimum };
enum class Pooling { maximum, average, average_with_padding };

// Along the spatial dimensions. A dilation of 1 is none; pooling has none.
struct Window {
  Sizes kernel, stride, dilation, padding;
};

// How what comes in lies in memory.
enum class Order { contiguous, channels_last };

using Value = int;

enum class Kind { convolve, apply, combine, pool, concatenate, reshape };

struct Step {
  Kind kind;
  std::vector<Value> inputs;
  Value output = -1;
  WeightPtr weight = nullptr;  // of a convolution, [O, I/groups, ...]
  WeightPtr bias = nullptr;
  Window window = {};
  int64_t groups = 1;
  Combination combination = Combination::add;
  Pooling pooling = Pooling::maximum;
  int dimension = 0;                                   // of a concatenation
  std::optional<Value> addend = std::nullopt;          // of a convolution, added to what it makes
  std::optional<Elementwise> function = std::nullopt;  // applied to all this
};

// The sizes have to fit: nothing is checked.
class Description {
 public:
  Value input(const Sizes& sizes, Order order);

  // With dimensions of size 1 before its own. It is the second operand of a combination, and nothing else.
  Value constant(const WeightPtr& weight, size_t rank);

  // Of [N, C, ...]; no bias: null
  Value convolve(Value input, const WeightPtr& weight, const WeightPtr& bias, const Window& window, int64_t groups);
  Value apply(const Elementwise& function, Value input);
  Value combine(Combination combination, Value one, Value other);  // `other` may be 1 along dimensions
  Value pool(Pooling pooling, Value input, const Window& window);
  Value concatenate(const std::vector<Value>& parts, int dimension);
  Value reshape(Value input, const Sizes& sizes);
  void output(Value value) { outputs_.push_back(value); }

  // Takes sums into the convolutions before them, and a function into what is before it.
  void fuse();

  const Sizes& sizes_of(Value value) const { return values_[value].sizes; }
  const WeightPtr& constant_of(Value value) const { return values_[value].constant; }  // null for what is computed
  size_t values() const { return values_.size(); }
  const std::vector<std::pair<Value, Order>>& inputs() const { return inputs_; }
  const std::vector<Value>& outputs() const { return outputs_; }
  const std::vector<Step>& steps() const { return steps_; }

 private:
  struct Described {
    Sizes sizes;
    WeightPtr constant = nullptr;
  };

  Value add(Sizes sizes, Step step);

  std::vector<Described> values_;
  std::vector<std::pair<Value, Order>> inputs_;
  std::vector<Value> outputs_;
  std::vector<Step> steps_;
};

}  // namespace bnfold::onednn
