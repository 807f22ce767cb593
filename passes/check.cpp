// Runs two modules on the same inputs and compares what they return.
#include "bnfold/check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/jit/runtime/jit_exception.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <unordered_set>

#include "bnfold/bnfold.h"
#include "graph/parameter_store.h"
#include "module/plain_mode.h"
#include "module/trial_run.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Random operators draw the same numbers in both modules.
constexpr uint64_t kSeed = 0;

enum class Which { original, folded };

c10::IValue run(const jit::Module& module, const std::vector<c10::IValue>& inputs, Which which, uint64_t seed = kSeed) {
  const RandomState random;
  at::manual_seed(seed);
  const auto forward = [&] { return run_forward(module, inputs); };
  const auto folded_error = [](const std::string& sentence) {
    return Error("the folded module can't run on an input that the original takes: " + sentence);
  };
  return which == Which::original ? run_or_throw(forward, input_error) : run_or_throw(forward, folded_error);
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// max |original - folded| / max |original|, over finite values; infinite where only one of the two is finite or they differ in shape.
double relative_error(const at::Tensor& original, const at::Tensor& folded) {
  if (original.sizes() != folded.sizes()) return kInfinity;
  if (original.numel() == 0) return 0;
  const at::ScalarType wide = original.is_complex() ? at::kComplexDouble : at::kDouble;
  const at::Tensor a = original.to(at::kCPU, wide);
  const at::Tensor b = folded.to(at::kCPU, wide);
  const at::Tensor finite = a.isfinite();
  const at::Tensor agree =
      finite.eq(b.isfinite()).logical_and(finite.logical_or(a.eq(b)).logical_or(a.ne(a).logical_and(b.ne(b))));
  if (!agree.all().item<bool>()) return kInfinity;
  const at::Tensor zero = at::zeros({}, a.options());
  const double difference = at::where(finite, a - b, zero).abs().max().item<double>();
  const double magnitude = at::where(finite, a, zero).abs().max().item<double>();
  if (difference == 0) return 0;
  return magnitude == 0 ? kInfinity : difference / magnitude;
}

// How precise what a module works with is, as a tolerance: a number that it returns was computed from that.
class Precision {
 public:
  void add(const c10::IValue& value) {
    if (value.isTensor()) add(value.toTensor());
    if (value.isTuple()) add_all(value.toTupleRef().elements());
    if (value.isList()) add_all(value.toListRef());
    if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) add(entry.value());
    }
  }

  void add(const jit::Module& module) {
    for (const at::Tensor& parameter : module.parameters()) add(parameter);
    for (const at::Tensor& buffer : module.buffers()) add(buffer);
  }

  // That of float where there was no floating tensor.
  double tolerance() const { return coarsest_ > 0 ? coarsest_ : bnfold::tolerance(at::kFloat); }

  // That of the most precise one; 0 where there was none.
  double finest() const { return finest_.value_or(0); }

 private:
  void add(const at::Tensor& tensor) {
    const double one = tensor.defined() ? bnfold::tolerance(tensor.scalar_type()) : 0;
    if (one == 0) return;
    coarsest_ = std::max(coarsest_, one);
    finest_ = std::min(finest_.value_or(one), one);
  }

  template <typename Values>
  void add_all(const Values& values) {
    for (const c10::IValue& value : values) add(value);
  }

  double coarsest_ = 0;
  std::optional<double> finest_;
};

// Numbers as a tensor; undefined where `value` has none that rounding can change.
at::Tensor numbers_of(const c10::IValue& value) {
  if (value.isDouble()) return at::scalar_tensor(value.toDouble(), at::kDouble);
  if (value.isComplexDouble()) return at::scalar_tensor(value.toComplexDouble(), at::kComplexDouble);
  if (value.isDoubleList()) return at::tensor(value.toDoubleVector(), at::kDouble);
  return {};
}

enum class Dtypes { same, any };

class Comparison {
 public:
  explicit Comparison(CheckResult& result, Dtypes dtypes = Dtypes::same) : result_(result), dtypes_(dtypes) {}

  // `of_numbers` is the tolerance of those that are no tensors, `least` that of tensors which are wider than what they are computed from.
  void compare_outputs(const c10::IValue& original, const c10::IValue& folded, double of_numbers, double least = 0) {
    of_numbers_ = of_numbers;
    least_ = least;
    compare(original, folded, "output");
  }

 private:
  void compare(const c10::IValue& original, const c10::IValue& folded, const std::string& where) {
    if (original.isTensor() && folded.isTensor()) return compare_tensors(original.toTensor(), folded.toTensor(), where);
    if (original.isTuple() && folded.isTuple()) {
      return compare_all(original.toTupleRef().elements(), folded.toTupleRef().elements(), where);
    }
    const at::Tensor numbers = numbers_of(original);
    const at::Tensor folded_numbers = numbers_of(folded);
    if (numbers.defined() && folded_numbers.defined()) return compare_numbers(numbers, folded_numbers, where);
    if (original.isList() && folded.isList()) return compare_all(original.toListRef(), folded.toListRef(), where);
    if (original.isGenericDict() && folded.isGenericDict()) {
      return compare_dicts(original.toGenericDict(), folded.toGenericDict(), where);
    }
    if (original.isFuture() && folded.isFuture()) return compare(result_of(original), result_of(folded), where);
    if (original.isObject() && folded.isObject()) return compare_objects(original, folded, where);
    if (original != folded) fail(where);
  }

  void compare_tensors(const at::Tensor& original, const at::Tensor& folded, const std::string& where) {
    if (!original.defined() && !folded.defined()) return;
    if (original.defined() != folded.defined()) return fail(where);
    const bool comparable = dtypes_ == Dtypes::any || original.scalar_type() == folded.scalar_type();
    const double error = comparable ? relative_error(original, folded) : kInfinity;
    const double allowed = tolerance(original.scalar_type());
    record(error, allowed == 0 ? 0 : std::max(allowed, least_), where);
  }

  void compare_numbers(const at::Tensor& original, const at::Tensor& folded, const std::string& where) {
    record(original.scalar_type() == folded.scalar_type() ? relative_error(original, folded) : kInfinity, of_numbers_, where);
  }

  void record(double error, double allowed, const std::string& where) {
    if (error > allowed) result_.passed = false;
    if (error / allowed > worst_) {
      worst_ = error / allowed;
      result_.largest_error = error;
      result_.tolerance = allowed;
      result_.worst_output = where;
    }
    if (result_.worst_output.empty()) {
      result_.worst_output = where;
      result_.tolerance = allowed;
    }
  }

  template <typename Values>
  void compare_all(const Values& original, const Values& folded, const std::string& where) {
    if (original.size() != folded.size()) return fail(where);
    for (size_t i = 0; i < original.size(); ++i) compare(original[i], folded[i], fmt::format("{}[{}]", where, i));
  }

  using Dict = c10::Dict<c10::IValue, c10::IValue>;

  void compare_dicts(const Dict& original, const Dict& folded, const std::string& where) {
    if (original.size() != folded.size()) return fail(where);
    for (const auto& entry : original) {
      const std::string key = entry.key().isString() ? fmt::format("'{}'", entry.key().toStringRef()) : "?";
      const auto other = folded.find(entry.key());
      if (other == folded.end()) return fail(where);
      compare(entry.value(), other->value(), fmt::format("{}[{}]", where, key));
    }
  }

  static c10::IValue result_of(const c10::IValue& future) {
    future.toFuture()->waitAndThrow();
    return future.toFuture()->value();
  }

  // Their classes are not changed by a fold, and may come from two files.
  void compare_objects(const c10::IValue& original, const c10::IValue& folded, const std::string& where) {
    const auto one = original.toObject();
    const auto other = folded.toObject();
    if (one->type()->numAttributes() != other->type()->numAttributes()) return fail(where);
    if (!compared_.insert(one.get()).second) return;
    for (size_t slot = 0; slot < one->type()->numAttributes(); ++slot) {
      const std::string name = fmt::format("{}.{}", where, one->type()->getAttributeName(slot));
      compare(one->getSlot(slot), other->getSlot(slot), name);
    }
  }

  void fail(const std::string& where) {
    result_.passed = false;
    result_.largest_error = kInfinity;
    result_.worst_output = where;
    worst_ = kInfinity;
  }

  CheckResult& result_;
  Dtypes dtypes_;
  double of_numbers_ = 0;
  double least_ = 0;
  double worst_ = 0;
  std::unordered_set<const void*> compared_;  // objects, which may hold each other
};

// ---- the rounding of the original itself

// How much farther than the original the folded module may be from what both would return without rounding; docs/checking.md measured it.
constexpr double kSpread = 2.5;
constexpr double kLargestRounding = 0.3;

double error_against(const c10::IValue& reference, const c10::IValue& output) {
  CheckResult result;
  Comparison(result, Dtypes::any).compare_outputs(reference, output, tolerance(at::kDouble));
  return result.largest_error;
}

// Module::to would make doubles of indices too.
at::Tensor widened(const at::Tensor& tensor) {
  return tensor.is_floating_point() ? tensor.to(at::kDouble) : tensor;
}

double unit_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
      return std::numeric_limits<double>::epsilon();
    case at::kFloat:
      return std::numeric_limits<float>::epsilon();
    case at::kHalf:
      return std::numeric_limits<c10::Half>::epsilon();
    case at::kBFloat16:
      return std::numeric_limits<c10::BFloat16>::epsilon();
    default:
      return 0;
  }
}

// Each number is off by up to one unit of the dtype, as rounding leaves it.
at::Tensor rounded_elsewhere(const at::Tensor& tensor) {
  const double unit = unit_of(tensor.scalar_type());
  if (unit == 0) return tensor;
  const at::Tensor wide = tensor.to(at::kDouble);
  return (wide * (1 + unit * (2 * at::rand_like(wide) - 1))).to(tensor.scalar_type());
}

// What the module returns with other tensors; nothing where it can't be copied or run so.
std::optional<c10::IValue> run_with(const std::function<at::Tensor(const at::Tensor&)>& changed, const jit::Module& module,
                                    std::vector<c10::IValue> inputs) try {
  const RandomState random;
  at::manual_seed(kSeed);
  const jit::Module other = module.deepcopy();
  for (const at::Tensor& parameter : other.parameters()) parameter.set_data(changed(parameter));
  for (const at::Tensor& buffer : other.buffers()) buffer.set_data(changed(buffer));
  for (c10::IValue& input : inputs) {
    if (input.isTensor()) input = changed(input.toTensor());
  }
  return run(other, inputs, Which::original);
} catch (const std::exception&) {
  return std::nullopt;
}

// What the module would return without rounding, but for the rounding of what is returned. One that casts to half or float itself does not
// run in double; then it is what the module returns with other rounding, which is about as far from that as what it returns is.
std::optional<c10::IValue> run_without_rounding(const jit::Module& module, const std::vector<c10::IValue>& inputs) {
  const auto in_double = run_with(widened, module, inputs);
  return in_double ? in_double : run_with(rounded_elsewhere, module, inputs);
}

// Whether other random numbers, which a run in double draws, change the output by more than `allowed`.
bool is_random(const jit::Module& original, const std::vector<c10::IValue>& inputs, const c10::IValue& expected, double allowed) {
  return error_against(expected, run(copy_to_run(original), inputs, Which::original, kSeed + 1)) > allowed;
}

// Whether a difference above the tolerance is the rounding of the original: then the folded module is about as near to the results without it.
// An error of more than a thousand tolerances is left to those who look at it: so near to noise, a wrong fold looks like rounding.
bool is_rounding_of_original(CheckResult& result, const jit::Module& original, const std::vector<c10::IValue>& inputs,
                             const c10::IValue& expected, const c10::IValue& actual) {
  const auto reference = std::isfinite(result.largest_error) ? run_without_rounding(original, inputs) : std::nullopt;
  if (!reference) return false;
  const double own = error_against(*reference, expected);
  if (own > std::min(1000 * result.tolerance, kLargestRounding) || error_against(*reference, actual) > kSpread * own)
    return false;
  if (is_random(original, inputs, expected, result.tolerance)) return false;
  result.tolerance = std::max(result.tolerance, (1 + kSpread) * own);
  return true;
}

}  // namespace

double tolerance(at::ScalarType dtype) {
  switch (dtype) {
    case at::kDouble:
    case at::kComplexDouble:
      return 1e-10;
    case at::kFloat:
    case at::kComplexFloat:
      return 1e-4;
    case at::kHalf:
      return 5e-2;
    case at::kBFloat16:
      return 2e-1;
    default:
      return 0;
  }
}

CheckResult check(const jit::Module& original, const jit::Module& folded, const std::vector<std::vector<c10::IValue>>& inputs) {
  return check(original, folded, static_cast<int>(inputs.size()), [&inputs](int number) { return inputs[number]; });
}

CheckResult check(const jit::Module& original, const jit::Module& folded, int count,
                  const std::function<std::vector<c10::IValue>(int)>& make_inputs) {
  const PlainMode plain;
  if (count == 0) throw Error("there are no inputs to compare the modules on");
  CheckResult result;
  bool passed = true;
  Comparison comparison(result);
  Precision precision;
  Precision of_what_is_given;
  for (Precision* one : {&precision, &of_what_is_given}) one->add(original);
  const jit::Module original_copy = copy_to_run(original);
  const jit::Module folded_copy = copy_to_run(folded);
  for (; result.inputs < count; ++result.inputs) {
    const std::vector<c10::IValue> inputs = make_inputs(result.inputs);
    const c10::IValue expected = run(original_copy, inputs, Which::original);
    const c10::IValue actual = run(folded_copy, inputs, Which::folded);
    result.passed = true;
    for (const c10::IValue& input : inputs) {
      for (Precision* one : {&precision, &of_what_is_given}) one->add(input);
    }
    precision.add(expected);
    comparison.compare_outputs(expected, actual, precision.tolerance(), of_what_is_given.finest());
    passed &= result.passed || is_rounding_of_original(result, original, inputs, expected, actual);
  }
  result.passed = passed;
  return result;
}

}  // namespace bnfold
