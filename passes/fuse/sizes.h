// Sizes that are computed from those of the inputs: two of them that are one here are equal whatever the inputs are.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace bnfold {

// A number of a `Sizes`. Equal ones stand for equal sizes; different ones may do so too.
using SizeId = int;

// Polynomials with whole coefficients over what is not known: the sizes of inputs, what is divided and rounded, and what an operator computes
// of other sizes. Each is kept once.
class Sizes {
 public:
  SizeId constant(int64_t number);

  // What nothing else is equal to but what is asked for by the same name and arguments. A size is never below 0.
  SizeId unknown(const std::string& name, const std::vector<SizeId>& arguments = {});

  SizeId sum(SizeId one, SizeId other);
  SizeId product(SizeId one, SizeId other);
  SizeId scaled(SizeId size, int64_t factor, int64_t addend);  // size * factor + addend

  // That of two numbers, which may be below 0: see `may_be_negative`.
  SizeId difference(SizeId one, SizeId other);

  // Rounded down; the divisor is above 0.
  SizeId quotient(SizeId size, int64_t divisor);

  // Of products of sizes, where the one is a multiple of the other.
  SizeId exact_quotient(const std::vector<SizeId>& factors, const std::vector<SizeId>& divisors);

  // What broadcasting makes of two sizes.
  SizeId broadcast(SizeId one, SizeId other);

  std::optional<int64_t> number(SizeId size) const;

  // Whether it is, or is made of, a number of which nothing tells that it is a size.
  bool may_be_negative(SizeId size) const;
  SizeId number_that_may_be_negative(const std::string& name, const std::vector<SizeId>& arguments = {});

 private:
  using Monomial = std::vector<int>;               // atoms in order, one for each time that it is a factor
  using Polynomial = std::map<Monomial, int64_t>;  // coefficients, none of them 0
  using Key = std::pair<std::string, std::vector<SizeId>>;

  struct Atom {
    std::optional<std::pair<SizeId, int64_t>> quotient{};  // what it is, rounded down
    bool may_be_negative;
  };

  SizeId of(Polynomial polynomial);
  SizeId of_atom(const Key& key, const Atom& atom);

  std::vector<Polynomial> polynomials_;
  std::map<Polynomial, SizeId> size_of_;
  std::vector<Atom> atoms_;
  std::map<Key, int> atom_of_;
};

}  // namespace bnfold
