// What is known of the values of a frozen graph: proven sizes and dtypes, and the sizes in a run on example inputs.
//
// What is proven holds for all inputs on which the graph does not raise, with one exception: the rank of an input is that of the example,
// and what a convolution reads has a batch. Whoever uses a fact relies on it (`rely_on_sizes`), and `insert_checks` then makes the graph raise where an
// input has another rank. The sizes of the example tell what pays, and nothing else.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "fuse/fact.h"
#include "fuse/sizes.h"
#include "module/observe.h"

namespace bnfold {

class Facts {
 public:
  // Of the graph as it is. What replaces a value is told by `replace`; of other new values nothing is known.
  Facts(const torch::jit::Graph& graph, Observations observed);

  // The sizes in the run, null where there was none, or where it did not tell them.
  const std::vector<int64_t>* example_of(const torch::jit::Value* value) const;

  void set_example(const torch::jit::Value* value, std::vector<int64_t> sizes) { observed_[value] = std::move(sizes); }

  std::optional<int64_t> rank_of(const torch::jit::Value* value) const;

  // The size along a dimension where it is one number for all inputs.
  std::optional<int64_t> size_of(const torch::jit::Value* value, int64_t dimension) const;

  // Whether both have the same size along a dimension, or along all of them.
  bool have_one_size(const torch::jit::Value* one, const torch::jit::Value* other, int64_t dimension) const;
  bool have_one_size(const torch::jit::Value* one, const torch::jit::Value* other) const;

  bool have_one_dtype(const torch::jit::Value* one, const torch::jit::Value* other) const;

  // Whether the dtype is one of floating-point or complex numbers.
  bool is_inexact(const torch::jit::Value* value) const;

  // `value` stands where `old` stood, or is new; `old` is about to go.
  void replace(const torch::jit::Value* old, torch::jit::Value* value);
  void forget(const torch::jit::Value* value);

  // Takes note that in `block` something was done that is right only if the ranks are as assumed of which the sizes of `value` were made, or
  // its dtype.
  void rely_on_sizes(const torch::jit::Value* value, torch::jit::Block* block);
  void rely_on_dtype(const torch::jit::Value* value, torch::jit::Block* block);

  // Makes the graph raise an error where one of these ranks is another.
  void insert_checks();

 private:
  friend class FactsReader;

  struct Assumption {
    torch::jit::Value* value;
    int64_t rank;
  };

  FactMap facts_;
  Observations observed_;
  std::vector<Assumption> assumptions_;
  std::set<std::pair<size_t, torch::jit::Block*>> relied_on_;
  std::shared_ptr<Sizes> sizes_ = std::make_shared<Sizes>();
};

}  // namespace bnfold
