#include "onednn/description.h"

#include <algorithm>

namespace bnfold::onednn {

namespace {

Sizes sizes_behind(const Sizes& input, int64_t channels, const Window& window) {
  Sizes sizes = {input[0], channels};
  for (size_t i = 0; i < window.kernel.size(); ++i) {
    const int64_t room = input[i + 2] + 2 * window.padding[i] - window.dilation[i] * (window.kernel[i] - 1) - 1;
    sizes.push_back(room / window.stride[i] + 1);
  }
  return sizes;
}

}  // namespace

Value Description::add(Sizes sizes, Step step) {
  values_.push_back({std::move(sizes)});
  step.output = static_cast<Value>(values_.size()) - 1;
  steps_.push_back(std::move(step));
  return steps_.back().output;
}

Value Description::input(const Sizes& sizes, Order order) {
  values_.push_back({sizes});
  inputs_.emplace_back(static_cast<Value>(values_.size()) - 1, order);
  return inputs_.back().first;
}

Value Description::constant(const WeightPtr& weight, size_t rank) {
  Sizes sizes = onednn::sizes_of(*weight);
  sizes.insert(sizes.begin(), rank - sizes.size(), 1);
  values_.push_back({std::move(sizes), weight});
  return static_cast<Value>(values_.size()) - 1;
}

Value Description::convolve(Value input, const WeightPtr& weight, const WeightPtr& bias, const Window& window, int64_t groups) {
  Step step{Kind::convolve, {input}};
  step.weight = weight;
  step.bias = bias;
  step.window = window;
  step.groups = groups;
  return add(sizes_behind(sizes_of(input), onednn::sizes_of(*weight)[0], window), std::move(step));
}

Value Description::apply(const Elementwise& function, Value input) {
  Step step{Kind::apply, {input}};
  step.function = function;
  return add(sizes_of(input), std::move(step));
}

Value Description::combine(Combination combination, Value one, Value other) {
  Step step{Kind::combine, {one, other}};
  step.combination = combination;
  return add(sizes_of(one), std::move(step));
}

Value Description::pool(Pooling pooling, Value input, const Window& window) {
  Step step{Kind::pool, {input}};
  step.pooling = pooling;
  step.window = window;
  return add(sizes_behind(sizes_of(input), sizes_of(input)[1], window), std::move(step));
}

Value Description::concatenate(const std::vector<Value>& parts, int dimension) {
  Sizes sizes = sizes_of(parts[0]);
  sizes[dimension] = 0;
  for (const Value part : parts) sizes[dimension] += sizes_of(part)[dimension];
  Step step{Kind::concatenate, parts};
  step.dimension = dimension;
  return add(std::move(sizes), std::move(step));
}

Value Description::reshape(Value input, const Sizes& sizes) {
  return add(sizes, Step{Kind::reshape, {input}});
}

// ---- fusing

namespace {

// The steps of a description, of which some move into the place of a later one that they take in.
class Fusing {
 public:
  explicit Fusing(const Description& description)
      : description_(description), readers_(description.values()), makers_(description.values()) {
    for (const Step& step : description.steps()) {
      for (const Value input : step.inputs) ++readers_[input];
    }
    for (const Value output : description.outputs()) ++readers_[output];
  }

  std::vector<Step> run() {
    for (const Step& step : description_.steps()) {
      if (!take_function(step) && !take_sum(step)) put(step);
    }
    std::vector<Step> left;
    for (auto& step : fused_) {
      if (step) left.push_back(std::move(*step));
    }
    return left;
  }

 private:
  void put(Step step) {
    makers_[step.output] = fused_.size();
    fused_.emplace_back(std::move(step));
  }

  // The step that makes `value` for one reader alone.
  const Step* made_for_one(Value value) const {
    return makers_[value] && readers_[value] == 1 ? &*fused_[*makers_[value]] : nullptr;
  }

  Step taken_out(Value value) {
    Step step = std::move(*fused_[*makers_[value]]);
    fused_[*makers_[value]].reset();
    makers_[value].reset();
    return step;
  }

  // One alone: of two that are bounds, or slopes, oneDNN 2.6 takes the numbers of one of them for both.
  bool take_function(const Step& step) {
    const Step* before = step.kind == Kind::apply ? made_for_one(step.inputs[0]) : nullptr;
    if (before != nullptr && before->function) return false;
    const bool computes =
        before != nullptr && before->kind != Kind::pool && before->kind != Kind::concatenate && before->kind != Kind::reshape;
    if (!computes) return false;
    Step whole = taken_out(step.inputs[0]);
    whole.function = step.function;
    whole.output = step.output;
    put(std::move(whole));
    return true;
  }

  bool takes_sum(Value value) const {
    const Step* step = made_for_one(value);
    return step != nullptr && step->kind == Kind::convolve && !step->addend && !step->function;
  }

  bool take_sum(const Step& step) {
    if (step.kind != Kind::combine || step.combination != Combination::add) return false;
    auto [conv, addend] = std::pair(step.inputs[0], step.inputs[1]);
    if (conv == addend || description_.sizes_of(conv) != description_.sizes_of(addend)) return false;
    if (description_.constant_of(conv) || description_.constant_of(addend)) return false;
    // Of two convolutions the later one, since that moves least.
    if (!takes_sum(conv) || (takes_sum(addend) && makers_[conv] < makers_[addend])) std::swap(conv, addend);
    if (!takes_sum(conv)) return false;
    Step whole = taken_out(conv);
    whole.addend = addend;
    whole.output = step.output;
    put(std::move(whole));
    return true;
  }

  const Description& description_;
  std::vector<int> readers_;                   // of each value
  std::vector<std::optional<size_t>> makers_;  // of each value, the place in `fused_`
  std::vector<std::optional<Step>> fused_;     // nothing where a step moved on
};

}  // namespace

void Description::fuse() {
  steps_ = Fusing(*this).run();
}

}  // namespace bnfold::onednn
