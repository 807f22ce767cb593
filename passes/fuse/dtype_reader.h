// Which values of a graph have one dtype, and which have one of floating-point or complex numbers.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "fuse/fact.h"

namespace bnfold {

// Asks the operator table what an operator does to dtypes. A dtype is that of a root: of a value of which nothing else is known, or of a constant.
class DtypeReader {
 public:
  explicit DtypeReader(const FactMap& facts) : facts_(facts) {}

  DtypeFact of_constant(at::ScalarType dtype);
  DtypeFact of_root(const torch::jit::Value* root);

  // That of the first output of `node`, of which `fact` is known so far, or of an element of the list that it takes apart. What it rests on is
  // noted in `fact`.
  DtypeFact of(const torch::jit::Node* node, Fact& fact);

  // Takes note of what `node` tells of the dtypes that it reads; whether that was new.
  bool learn(const torch::jit::Node* node);

 private:
  const DtypeFact& input(const torch::jit::Node* node, size_t place = 0) const;
  DtypeFact of_layer(const torch::jit::Node* node);
  DtypeFact of_cast(const torch::jit::Node* node, DtypeFact otherwise);
  DtypeFact of_list(const torch::jit::Value* list, DtypeFact otherwise) const;
  DtypeFact of_operands(at::ArrayRef<const torch::jit::Value*> operands, Fact& fact) const;
  bool is_floating(const DtypeFact& dtype) const;
  bool is_constant(const DtypeFact& dtype) const;
  bool learn(const torch::jit::Node* reader, const torch::jit::Value* value, std::optional<at::ScalarType> dtype);

  const FactMap& facts_;
  std::map<at::ScalarType, int> constants_;
  std::unordered_map<const torch::jit::Value*, int> numbers_;                    // of roots
  std::vector<const torch::jit::Value*> roots_;                                  // by number; null for a constant
  std::unordered_map<const torch::jit::Value*, at::ScalarType> learned_dtypes_;  // of roots
  std::unordered_set<const torch::jit::Value*> learned_inexact_;
};

}  // namespace bnfold
