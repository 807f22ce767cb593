// What is proven of one value, and of all of them.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <optional>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/sizes.h"

namespace bnfold {

struct DtypeFact {
  int number = -1;  // values with one number have one dtype; -1 where nothing is known
  bool inexact = false;

  bool operator==(const DtypeFact& other) const { return number == other.number && inexact == other.inexact; }
};

// The sizes of a tensor, or the elements of a list of ints; nothing where how many there are is not known.
using SizeList = std::optional<std::vector<SizeId>>;

struct Fact {
  SizeList sizes{};
  const torch::jit::Value* like = nullptr;  // where the sizes are not known: what surely has the same rank
  DtypeFact dtype{};
  std::set<size_t> assumed{};            // of which the sizes were made, places among the assumptions
  std::set<size_t> assumed_for_dtype{};  // and the dtype
};

class FactMap {
 public:
  // That of a value of which nothing is known, where nothing was told.
  const Fact& of(const torch::jit::Value* value) const {
    static const Fact nothing;
    const auto found = facts_.find(value);
    return found == facts_.end() ? nothing : found->second;
  }

  void set(const torch::jit::Value* value, Fact fact) { facts_.insert_or_assign(value, std::move(fact)); }
  void move(const torch::jit::Value* from, const torch::jit::Value* to) {
    const auto fact = facts_.extract(from);
    if (!fact.empty()) facts_.insert_or_assign(to, std::move(fact.mapped()));
  }
  void erase(const torch::jit::Value* value) { facts_.erase(value); }
  void clear() { facts_.clear(); }

 private:
  std::unordered_map<const torch::jit::Value*, Fact> facts_;
};

}  // namespace bnfold
