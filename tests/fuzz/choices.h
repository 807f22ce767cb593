// Decisions drawn from a string of bytes. Random bytes, those that libFuzzer mutates and those that shrinking removes all steer the same
// generator. The first of the alternatives should be the simplest one: it is what a string that has come to its end gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace bnfold::fuzz {

class Choices {
 public:
  explicit Choices(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)) {}

  // A number from 0 to count - 1, at most 255.
  size_t below(size_t count) {
    if (position_ == bytes_.size()) return 0;
    return bytes_[position_++] % count;
  }

  // How many bytes were drawn.
  size_t used() const { return position_; }

  // Whether the last one of `count` was drawn.
  bool one_in(size_t count) { return below(count) == count - 1; }

  template <typename T>
  const T& one_of(const std::vector<T>& alternatives) {
    return alternatives[below(alternatives.size())];
  }

 private:
  std::vector<uint8_t> bytes_;
  size_t position_ = 0;
};

}  // namespace bnfold::fuzz
