#include "onednn/program.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "onednn/primitives.h"
#include "onednn/shared_parts.h"

namespace bnfold::onednn {

namespace {

using dnnl::algorithm;

std::vector<EltwiseStep> eltwise_steps(const std::optional<Elementwise>& some) {
  if (!some) return {};
  const Elementwise& one = *some;
  switch (one.function) {
    case Function::relu:
      return {{algorithm::eltwise_relu, one.alpha, 0}};
    case Function::clip:
      return {{algorithm::eltwise_clip, one.alpha, one.beta}};
    case Function::swish:
      return {{algorithm::eltwise_swish, 1, 0}};
    case Function::gelu_erf:
      return {{algorithm::eltwise_gelu_erf, 0, 0}};
    case Function::gelu_tanh:
      return {{algorithm::eltwise_gelu_tanh, 0, 0}};
    case Function::hardswish:
      return {hardswish()};
    case Function::hardsigmoid:
      return {{algorithm::eltwise_linear, 1.F / 6, 0.5F}, {algorithm::eltwise_clip, 0, 1}};
    case Function::logistic:
      return {{algorithm::eltwise_logistic, 0, 0}};
    case Function::tanh:
      return {{algorithm::eltwise_tanh, 0, 0}};
  }
  throw std::logic_error("no such function");
}

dnnl::algorithm algorithm_of(Combination combination) {
  switch (combination) {
    case Combination::add:
      return algorithm::binary_add;
    case Combination::multiply:
      return algorithm::binary_mul;
    case Combination::maximum:
      return algorithm::binary_max;
    case Combination::minimum:
      return algorithm::binary_min;
  }
  throw std::logic_error("no such combination");
}

dnnl::algorithm algorithm_of(Pooling pooling) {
  switch (pooling) {
    case Pooling::maximum:
      return algorithm::pooling_max;
    case Pooling::average:
      return algorithm::pooling_avg_exclude_padding;
    case Pooling::average_with_padding:
      return algorithm::pooling_avg_include_padding;
  }
  throw std::logic_error("no such pooling");
}

void append(dnnl::post_ops& ops, const std::vector<EltwiseStep>& steps, size_t from = 0) {
  for (size_t i = from; i < steps.size(); ++i) append(ops, steps[i]);
}

// The scratchpad is memory between the steps, too.
dnnl::primitive_attr attributes_with(const dnnl::post_ops& ops) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attributes.set_post_ops(ops);
  return attributes;
}

class Builder {
 public:
  explicit Builder(const Description& description)
      : description_(description),
        places_(description.values()),
        last_readers_(description.values(), 0),
        parts_(description),
        wholes_(parts_.wholes()),
        is_shared_(parts_.wholes(), true) {}

  Program run();

 private:
  void find_last_readers();
  void add_input(size_t number);
  void add_output(size_t number);
  Place result_of(const Step& step);
  Place convolution(const Step& step);
  Place functions(const Step& step);
  Place combination(const Step& step);
  Place pooling(const Step& step);
  Place concatenation(const Step& step);
  std::optional<Place> shared_concatenation(const Step& step, const Desc& pattern);
  Place reshaped(const Step& step);

  dnnl::convolution_forward::primitive_desc convolution_desc(const Step& step, const dnnl::post_ops& ops) const;
  Place second_operand(const Step& step, const Desc& pattern);

  // -- places
  const Sizes& sizes_of(Value value) const { return description_.sizes_of(value); }
  const Place& place_of(Value value) const { return *places_[value]; }
  Place new_place(const Desc& desc);
  Place outside(Buffer::Kind kind, size_t number, const Desc& desc);
  Place constant(Weight& weight, const Desc& desc);
  Place in_order(const Place& place, const Desc& desc);
  Place place_for_result(const Step& step, const Desc& desc);
  std::optional<Place> place_in(const Slot& slot, const Desc& desc);
  bool may_overwrite(Value value) const;

  // -- primitives
  void emit(dnnl::primitive primitive, std::vector<Argument> arguments);
  template <typename PrimitiveDesc>
  void emit(const PrimitiveDesc& desc, dnnl::primitive primitive, std::vector<Argument> arguments);
  void reorder(const Place& from, const Place& to);

  const Description& description_;
  std::vector<std::optional<Place>> places_;  // of the values
  std::vector<size_t> last_readers_;          // of the values, the step; behind the last one for an output
  size_t current_ = 0;                        // the step that is added
  SharedParts parts_;
  std::vector<std::optional<Place>> wholes_;  // of the concatenations that share their parts; nothing before the first part
  std::vector<bool> is_shared_;               // whether they may
  Program program_;
};

Program Builder::run() {
  find_last_readers();
  for (size_t i = 0; i < description_.inputs().size(); ++i) add_input(i);
  for (const Step& step : description_.steps()) {
    places_[step.output] = result_of(step);
    ++current_;
  }
  for (size_t i = 0; i < description_.outputs().size(); ++i) add_output(i);
  return std::move(program_);
}

void Builder::find_last_readers() {
  const auto& steps = description_.steps();
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const Value input : steps[i].inputs) last_readers_[input] = i;
    if (steps[i].addend) last_readers_[*steps[i].addend] = i;
  }
  for (const Value output : description_.outputs()) last_readers_[output] = steps.size();
}

// ---- places

Place Builder::new_place(const Desc& desc) {
  program_.buffers.push_back({Buffer::Kind::between, desc.get_size()});
  return {program_.buffers.size() - 1, desc};
}

Place Builder::outside(Buffer::Kind kind, size_t number, const Desc& desc) {
  Buffer buffer{kind};
  buffer.number = number;
  program_.buffers.push_back(buffer);
  return {program_.buffers.size() - 1, desc};
}

Place Builder::constant(Weight& weight, const Desc& desc) {
  Buffer buffer{Buffer::Kind::constant};
  buffer.constant = onednn::in_order(weight, desc);
  program_.buffers.push_back(buffer);
  return {program_.buffers.size() - 1, desc};
}

Place Builder::in_order(const Place& place, const Desc& desc) {
  if (place.desc == desc) return place;
  const Place reordered = new_place(desc);
  reorder(place, reordered);
  return reordered;
}

// In the concatenation that it is a part of, where that is possible.
Place Builder::place_for_result(const Step& step, const Desc& desc) {
  const auto slot = parts_.slot_of(step.output);
  const auto place = slot ? place_in(*slot, desc) : std::nullopt;
  return place ? *place : new_place(desc);
}

// Where a part in this order begins. The first part decides in which order the whole is: one of blocks, since oneDNN's kernels may want memory that is
// aligned as blocks are.
std::optional<Place> Builder::place_in(const Slot& slot, const Desc& desc) {
  auto& whole = wholes_[slot.whole];
  if (!whole && is_shared_[slot.whole]) {
    const int64_t block = channels_of_block(desc);
    is_shared_[slot.whole] = block != 0 && parts_.are_multiples(slot.whole, block);
    if (is_shared_[slot.whole]) whole = new_place(like(desc, parts_.sizes_of(slot.whole)));
  }
  if (!whole || like(whole->desc, dims_of(desc)) != desc) return std::nullopt;
  const Sizes sizes = dims_of(desc);
  const int64_t numbers = std::accumulate(sizes.begin() + 2, sizes.end(), slot.channel, std::multiplies<>());
  return Place{whole->buffer, desc, numbers * sizeof(float)};
}

// Whether nobody reads or writes the memory of `value` behind the step that is added. A reshaped value lies where the other one does, and parts of a
// concatenation are written into it later. Where blocks are padded oneDNN 2.6 computes wrong numbers in place.
bool Builder::may_overwrite(Value value) const {
  const size_t buffer = place_of(value).buffer;
  if (program_.buffers[buffer].kind != Buffer::Kind::between || is_padded(place_of(value).desc)) return false;
  if (std::any_of(wholes_.begin(), wholes_.end(), [buffer](const auto& whole) { return whole && whole->buffer == buffer; }))
    return false;
  for (size_t other = 0; other < places_.size(); ++other) {
    if (places_[other] && places_[other]->buffer == buffer && last_readers_[other] > current_) return false;
  }
  return true;
}

void Builder::add_input(size_t number) {
  const auto& [value, order] = description_.inputs()[number];
  const Sizes& sizes = sizes_of(value);
  places_[value] = outside(Buffer::Kind::input, number, order == Order::channels_last ? channels_last(sizes) : row_major(sizes));
}

void Builder::add_output(size_t number) {
  const Value value = description_.outputs()[number];
  reorder(place_of(value), outside(Buffer::Kind::output, number, row_major(sizes_of(value))));
}

// ---- primitives

void Builder::emit(dnnl::primitive primitive, std::vector<Argument> arguments) {
  for (const Argument& argument : arguments) {
    Buffer& buffer = program_.buffers[argument.place.buffer];
    buffer.first = std::min(buffer.first, program_.primitives.size());
    buffer.last = std::max(buffer.last, program_.primitives.size());
  }
  program_.primitives.push_back({std::move(primitive), std::move(arguments)});
}

template <typename PrimitiveDesc>
void Builder::emit(const PrimitiveDesc& desc, dnnl::primitive primitive, std::vector<Argument> arguments) {
  const Desc scratchpad = desc.scratchpad_desc();
  if (scratchpad.get_size() != 0) arguments.push_back({DNNL_ARG_SCRATCHPAD, new_place(scratchpad)});
  emit(std::move(primitive), std::move(arguments));
}

void Builder::reorder(const Place& from, const Place& to) {
  const dnnl::reorder::primitive_desc desc(cpu(), from.desc, cpu(), to.desc, attributes_with({}));
  emit(desc, dnnl::reorder(desc), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

Place Builder::result_of(const Step& step) {
  switch (step.kind) {
    case Kind::convolve:
      return convolution(step);
    case Kind::apply:
      return functions(step);
    case Kind::combine:
      return combination(step);
    case Kind::pool:
      return pooling(step);
    case Kind::concatenate:
      return concatenation(step);
    case Kind::reshape:
      return reshaped(step);
  }
  throw std::logic_error("no such step");
}

dnnl::convolution_forward::primitive_desc Builder::convolution_desc(const Step& step, const dnnl::post_ops& ops) const {
  Sizes weight = onednn::sizes_of(*step.weight);
  if (step.groups != 1) {
    weight[0] /= step.groups;
    weight.insert(weight.begin(), step.groups);
  }
  const Desc bias = step.bias ? row_major(onednn::sizes_of(*step.bias)) : Desc();
  const auto chosen = onednn::convolution_desc(any_order(sizes_of(step.inputs[0])), any_order(weight), bias,
                                               any_order(sizes_of(step.output)), step.window, attributes_with(ops));
  const std::string implementation = chosen.impl_info_str();
  if (implementation.find("gemm:") != std::string::npos || implementation.find("ref") != std::string::npos) {
    throw std::runtime_error("it has no kernel for a convolution, but " + implementation);
  }
  return chosen;
}

// A sum is written over its addend where nobody reads that later, and the convolution does not; else the addend is read from where it is.
Place Builder::convolution(const Step& step) {
  const std::vector<EltwiseStep> functions = eltwise_steps(step.function);
  std::vector<Argument> arguments;
  std::optional<Place> result;
  dnnl::post_ops ops;
  if (step.addend) ops.append_sum(1.F);
  append(ops, functions);
  auto desc = convolution_desc(step, ops);
  if (step.addend) {
    const Place addend = in_order(place_of(*step.addend), desc.dst_desc());
    const bool is_copy = addend.buffer != place_of(*step.addend).buffer;
    const bool is_read = addend.buffer == place_of(step.inputs[0]).buffer;
    if (is_copy || (!is_read && may_overwrite(*step.addend))) {
      result = addend;
    } else {
      dnnl::post_ops from_elsewhere;
      from_elsewhere.append_binary(algorithm::binary_add, addend.desc);
      append(from_elsewhere, functions);
      desc = convolution_desc(step, from_elsewhere);
      arguments.push_back({DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, addend});
    }
  }
  const Place input = in_order(place_of(step.inputs[0]), desc.src_desc());
  const Place weight = constant(*step.weight, desc.weights_desc());
  if (!result) result = place_for_result(step, desc.dst_desc());
  arguments.push_back({DNNL_ARG_SRC, input});
  arguments.push_back({DNNL_ARG_WEIGHTS, weight});
  if (step.bias) arguments.push_back({DNNL_ARG_BIAS, constant(*step.bias, desc.bias_desc())});
  arguments.push_back({DNNL_ARG_DST, *result});
  emit(desc, dnnl::convolution_forward(desc), std::move(arguments));
  return *result;
}

Place Builder::functions(const Step& step) {
  const std::vector<EltwiseStep> steps = eltwise_steps(step.function);
  const Place input = place_of(step.inputs[0]);
  dnnl::post_ops ops;
  append(ops, steps, 1);
  const auto desc = eltwise_desc(steps[0], input.desc, attributes_with(ops));
  const Place result = may_overwrite(step.inputs[0]) ? input : place_for_result(step, input.desc);
  emit(desc, dnnl::eltwise_forward(desc), {{DNNL_ARG_SRC, input}, {DNNL_ARG_DST, result}});
  return result;
}

Place Builder::second_operand(const Step& step, const Desc& pattern) {
  const Value value = step.inputs[1];
  const Desc wanted = like(pattern, sizes_of(value));
  if (const WeightPtr& weight = description_.constant_of(value)) return constant(*weight, wanted);
  return in_order(place_of(value), wanted);
}

Place Builder::combination(const Step& step) {
  const Place one = place_of(step.inputs[0]);
  const Place other = second_operand(step, one.desc);
  dnnl::post_ops ops;
  append(ops, eltwise_steps(step.function));
  const auto desc = binary_desc(algorithm_of(step.combination), one.desc, other.desc, attributes_with(ops));
  const bool in_place = step.inputs[0] != step.inputs[1] && may_overwrite(step.inputs[0]);
  const Place result = in_place ? one : place_for_result(step, one.desc);
  emit(desc, dnnl::binary(desc), {{DNNL_ARG_SRC_0, one}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, result}});
  return result;
}

Place Builder::pooling(const Step& step) {
  const Place input = place_of(step.inputs[0]);
  const auto desc =
      pooling_desc(algorithm_of(step.pooling), input.desc, any_order(sizes_of(step.output)), step.window, attributes_with({}));
  const Place result = place_for_result(step, desc.dst_desc());
  emit(desc, dnnl::pooling_forward(desc), {{DNNL_ARG_SRC, input}, {DNNL_ARG_DST, result}});
  return result;
}

// In the order of the largest part.
Place Builder::concatenation(const Step& step) {
  const auto is_smaller = [this](Value one, Value other) {
    return place_of(one).desc.get_size() < place_of(other).desc.get_size();
  };
  const Desc pattern = place_of(*std::max_element(step.inputs.begin(), step.inputs.end(), is_smaller)).desc;
  if (const auto shared = shared_concatenation(step, pattern)) return *shared;
  std::vector<Desc> descs;
  std::vector<Argument> arguments;
  for (const Value part : step.inputs) {
    const Place place = in_order(place_of(part), like(pattern, sizes_of(part)));
    arguments.push_back({DNNL_ARG_MULTIPLE_SRC + static_cast<int>(descs.size()), place});
    descs.push_back(place.desc);
  }
  const auto desc = concat_desc(like(pattern, sizes_of(step.output)), step.dimension, descs, attributes_with({}));
  const Place result = new_place(desc.dst_desc());
  arguments.push_back({DNNL_ARG_DST, result});
  emit(desc, dnnl::concat(desc), std::move(arguments));
  return result;
}

// Copies what is not there yet.
std::optional<Place> Builder::shared_concatenation(const Step& step, const Desc& pattern) {
  const auto number = parts_.whole_of(step);
  if (!number) return std::nullopt;
  int64_t channel = 0;
  for (const Value part : step.inputs) {
    const Desc desc = like(wholes_[*number] ? wholes_[*number]->desc : pattern, sizes_of(part));
    const auto place = place_in({*number, channel}, desc);
    if (!place) return std::nullopt;
    const Place& old = place_of(part);
    if (old.buffer != place->buffer || old.offset != place->offset) {
      reorder(old, *place);
      const auto slot = parts_.slot_of(part);
      if (slot && slot->whole == *number && slot->channel == channel) places_[part] = place;
    }
    channel += sizes_of(part)[1];
  }
  return Place{wholes_[*number]->buffer, like(wholes_[*number]->desc, sizes_of(step.output))};
}

Place Builder::reshaped(const Step& step) {
  const Place input = in_order(place_of(step.inputs[0]), row_major(sizes_of(step.inputs[0])));
  return {input.buffer, row_major(sizes_of(step.output)), input.offset};
}

}  // namespace

Program program_of(const Description& description) {
  return Builder(description).run();
}

}  // namespace bnfold::onednn
