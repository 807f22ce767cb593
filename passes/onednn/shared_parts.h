// Concatenations whose parts are computed where they belong, without a copy.
//
//   a --> cat(a, b) --> cat(a, b, c)          one buffer for a, b and c; the first concatenation is the beginning of the second
//
// One image alone: the parts of several images do not lie one behind the other.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "onednn/description.h"

namespace bnfold::onednn {

// Where a value belongs: in the result of a whole concatenation, which a number stands for, behind this many channels.
struct Slot {
  size_t whole;
  int64_t channel;
};

class SharedParts {
 public:
  explicit SharedParts(const Description& description);

  size_t wholes() const { return sizes_.size(); }
  const Sizes& sizes_of(size_t whole) const { return sizes_[whole]; }

  // The whole of which the result of a concatenation is the beginning, or all.
  std::optional<size_t> whole_of(const Step& concatenation) const;

  // Where what a step makes belongs. A value that belongs to several wholes has a place in the last one.
  std::optional<Slot> slot_of(Value value) const;

  // Whether every part begins at, and has, a multiple of `block` channels.
  bool are_multiples(size_t whole, int64_t block) const;

 private:
  std::vector<Sizes> sizes_;
  std::vector<std::vector<int64_t>> channels_;  // of the parts of each whole
  std::map<Value, size_t> wholes_;              // of the results of concatenations
  std::map<Value, Slot> slots_;
};

}  // namespace bnfold::onednn
