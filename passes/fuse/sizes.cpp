// Rounding down has one form: floor((a*d + b) / d) is a + floor(b / d), coefficient by coefficient, and floor((floor(p / c) + k) / d) is
// floor((p + k*c) / (c*d)). So a window of 3 with a border of 1 and a window of 1, both of stride 2, give one size of n:
//   floor((n + 2 - 3) / 2) + 1  =  floor((n - 1) / 2) + 1  =  floor((n + 1) / 2)
#include "fuse/sizes.h"

#include <algorithm>

namespace bnfold {

namespace {

// Longer ones are kept as what they are made of.
constexpr size_t kMostTerms = 32;
constexpr size_t kMostFactors = 16;
// Larger numbers are no sizes, and would overflow.
constexpr int64_t kLargest = int64_t{1} << 31;

int64_t floor_divided(int64_t number, int64_t divisor) {
  const int64_t towards_zero = number / divisor;
  return number % divisor < 0 ? towards_zero - 1 : towards_zero;
}

}  // namespace

SizeId Sizes::of(Polynomial polynomial) {
  const auto [found, is_new] = size_of_.emplace(std::move(polynomial), static_cast<SizeId>(polynomials_.size()));
  if (is_new) polynomials_.push_back(found->first);
  return found->second;
}

SizeId Sizes::of_atom(const Key& key, const Atom& atom) {
  const auto [found, is_new] = atom_of_.emplace(key, static_cast<int>(atoms_.size()));
  if (is_new) atoms_.push_back(atom);
  return of({{{found->second}, 1}});
}

SizeId Sizes::constant(int64_t number) {
  if (number < -kLargest || number > kLargest) return number_that_may_be_negative("constant " + std::to_string(number));
  return of(number == 0 ? Polynomial() : Polynomial{{{}, number}});
}

SizeId Sizes::unknown(const std::string& name, const std::vector<SizeId>& arguments) {
  const bool negative = std::any_of(arguments.begin(), arguments.end(), [this](SizeId size) { return may_be_negative(size); });
  return of_atom({name, arguments}, {std::nullopt, negative});
}

SizeId Sizes::number_that_may_be_negative(const std::string& name, const std::vector<SizeId>& arguments) {
  return of_atom({name, arguments}, {std::nullopt, true});
}

SizeId Sizes::sum(SizeId one, SizeId other) {
  Polynomial terms = polynomials_[one];
  for (const auto& [monomial, coefficient] : polynomials_[other]) {
    const int64_t total = terms[monomial] += coefficient;
    if (total < -kLargest || total > kLargest) return unknown("sum", {std::min(one, other), std::max(one, other)});
    if (total == 0) terms.erase(monomial);
  }
  return of(std::move(terms));
}

SizeId Sizes::product(SizeId one, SizeId other) {
  const auto as_it_is = [&] { return unknown("product", {std::min(one, other), std::max(one, other)}); };
  if (polynomials_[one].size() * polynomials_[other].size() > kMostTerms) return as_it_is();
  Polynomial terms;
  for (const auto& [left, left_coefficient] : polynomials_[one]) {
    for (const auto& [right, right_coefficient] : polynomials_[other]) {
      if (left.size() + right.size() > kMostFactors) return as_it_is();
      Monomial monomial = left;
      monomial.insert(monomial.end(), right.begin(), right.end());
      std::sort(monomial.begin(), monomial.end());
      const int64_t total = terms[monomial] += left_coefficient * right_coefficient;
      if (total < -kLargest || total > kLargest) return as_it_is();
      if (total == 0) terms.erase(monomial);
    }
  }
  return of(std::move(terms));
}

SizeId Sizes::scaled(SizeId size, int64_t factor, int64_t addend) {
  return sum(product(size, constant(factor)), constant(addend));
}

SizeId Sizes::difference(SizeId one, SizeId other) {
  const SizeId result = scaled(other, -1, 0);
  const SizeId total = sum(one, result);
  const bool negative =
      std::any_of(polynomials_[total].begin(), polynomials_[total].end(), [](const auto& term) { return term.second < 0; });
  return negative ? number_that_may_be_negative("difference", {total}) : total;
}

SizeId Sizes::quotient(SizeId size, int64_t divisor) {
  if (divisor == 1) return size;
  if (divisor > kLargest) return unknown("quotient", {size, constant(divisor)});
  Polynomial whole;
  Polynomial rest;
  for (const auto& [monomial, coefficient] : polynomials_[size]) {
    const int64_t times = floor_divided(coefficient, divisor);
    if (times != 0) whole[monomial] = times;
    if (coefficient != times * divisor) rest[monomial] = coefficient - times * divisor;
  }
  if (rest.empty() || (rest.size() == 1 && rest.begin()->first.empty())) return of(std::move(whole));
  // The rest is floor(p / c) + k: one division.
  const auto last = std::prev(rest.end());
  const auto& inner = last->first.size() == 1 ? atoms_[last->first.front()].quotient : std::nullopt;
  const bool has_constant = rest.begin()->first.empty();
  if (inner && last->second == 1 && rest.size() == (has_constant ? 2U : 1U) && inner->second * divisor <= kLargest) {
    const auto [dividend, before] = *inner;
    const SizeId all = scaled(dividend, 1, has_constant ? rest.begin()->second * before : 0);
    return sum(of(std::move(whole)), quotient(all, before * divisor));
  }
  const SizeId dividend = of(std::move(rest));
  const SizeId rounded =
      of_atom({"quotient", {dividend, constant(divisor)}}, {std::make_pair(dividend, divisor), may_be_negative(dividend)});
  return sum(of(std::move(whole)), rounded);
}

SizeId Sizes::exact_quotient(const std::vector<SizeId>& factors, const std::vector<SizeId>& divisors) {
  std::vector<SizeId> above;
  std::vector<SizeId> below = divisors;
  for (const SizeId factor : factors) {
    const auto same = std::find(below.begin(), below.end(), factor);
    if (same == below.end()) above.push_back(factor);
    if (same != below.end()) below.erase(same);
  }
  SizeId dividend = constant(1);
  SizeId divisor = constant(1);
  for (const SizeId factor : above) dividend = product(dividend, factor);
  for (const SizeId factor : below) divisor = product(divisor, factor);
  const Polynomial by = polynomials_[divisor];
  if (by.size() != 1) return unknown("exact quotient", {dividend, divisor});
  Polynomial result;
  for (const auto& [whole, coefficient] : polynomials_[dividend]) {
    Monomial monomial = whole;
    for (const int atom : by.begin()->first) {
      const auto found = std::find(monomial.begin(), monomial.end(), atom);
      if (found == monomial.end()) return unknown("exact quotient", {dividend, divisor});
      monomial.erase(found);
    }
    if (coefficient % by.begin()->second != 0) return unknown("exact quotient", {dividend, divisor});
    result[monomial] = coefficient / by.begin()->second;
  }
  return of(std::move(result));
}

SizeId Sizes::broadcast(SizeId one, SizeId other) {
  if (one == other || number(other) == 1) return one;
  if (number(one) == 1 || number(other)) return other;
  return number(one) ? one : unknown("broadcast", {std::min(one, other), std::max(one, other)});
}

std::optional<int64_t> Sizes::number(SizeId size) const {
  const Polynomial& terms = polynomials_[size];
  if (terms.empty()) return 0;
  const bool alone = terms.size() == 1 && terms.begin()->first.empty();
  return alone ? std::optional<int64_t>(terms.begin()->second) : std::nullopt;
}

bool Sizes::may_be_negative(SizeId size) const {
  if (const auto known = number(size)) return *known < 0;
  const Polynomial& terms = polynomials_[size];
  return std::any_of(terms.begin(), terms.end(), [this](const auto& term) {
    return std::any_of(term.first.begin(), term.first.end(), [this](int atom) { return atoms_[atom].may_be_negative; });
  });
}

}  // namespace bnfold
