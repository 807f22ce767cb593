// Runs two modules on the same inputs and compares what they return.
#include "bnfold/check.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <fmt/format.h>
#include <torch/csrc/jit/runtime/jit_exception.h>

#include <limits>

#include "bnfold/bnfold.h"
#include "sentence.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Random operators draw the same numbers in both modules.
constexpr uint64_t kSeed = 0;

enum class Which { original, folded };

// Puts the random generators back into the state they were in.
class RandomState {
 public:
  RandomState() {
    generators_.push_back(at::globalContext().defaultGenerator(at::kCPU));
    const int gpus = at::hasCUDA() ? at::detail::getCUDAHooks().getNumGPUs() : 0;
    for (int gpu = 0; gpu < gpus; ++gpu)
      generators_.push_back(at::globalContext().defaultGenerator({at::kCUDA, static_cast<int8_t>(gpu)}));
    for (const at::Generator& generator : generators_) states_.push_back(generator.get_state());
  }

  ~RandomState() {
    for (size_t i = 0; i < generators_.size(); ++i) generators_[i].set_state(states_[i]);
  }

  RandomState(const RandomState&) = delete;
  RandomState& operator=(const RandomState&) = delete;

 private:
  std::vector<at::Generator> generators_;
  std::vector<at::Tensor> states_;
};

// Puts the buffers and other attributes of a module back to what they were: running a module may count, cache or train.
class State {
 public:
  explicit State(const jit::Module& module) {
    for (const jit::Module& one : module.modules()) {
      const auto type = one.type();
      for (size_t slot = 0; slot < type->numAttributes(); ++slot) {
        const c10::IValue value = one._ivalue()->getSlot(slot);
        if (type->is_parameter(slot) || value.isModule() || value.isCapsule()) continue;
        try {
          entries_.push_back({one._ivalue(), slot, value, value.deepcopy()});
        } catch (const c10::Error&) {
          continue;  // an object of a C++ class that can't be copied
        }
      }
    }
  }

  ~State() {
    for (const Entry& entry : entries_) {
      const bool tensor = entry.value.isTensor() && entry.value.toTensor().defined();
      if (tensor) entry.value.toTensor().copy_(entry.content.toTensor());
      if (entry.value.isObject()) restore(*entry.value.toObject(), *entry.content.toObject());
      entry.module->setSlot(entry.slot, tensor || entry.value.isObject() ? entry.value : entry.content);
    }
  }

  State(const State&) = delete;
  State& operator=(const State&) = delete;

 private:
  struct Entry {
    jit::ModulePtr module;
    size_t slot;
    c10::IValue value;
    c10::IValue content;
  };

  static void restore(c10::ivalue::Object& object, const c10::ivalue::Object& content) {
    for (size_t slot = 0; slot < object.slots().size(); ++slot) object.setSlot(slot, content.getSlot(slot));
  }

  std::vector<Entry> entries_;
};

// Inputs that came through an operator are plain tuples where forward takes named ones.
c10::IValue as_argument(const c10::IValue& input, const c10::TypePtr& type) {
  const auto tuple = type->cast<c10::TupleType>();
  if (!tuple || !tuple->schema() || !input.isTuple()) return input.deepcopy();
  return c10::ivalue::Tuple::createNamed(input.deepcopy().toTupleRef().elements().vec(), tuple);
}

[[noreturn]] void fail_to_run(Which which, const std::string& what) {
  const std::string sentence = first_sentence(what);
  if (which == Which::original) throw InputError(fmt::format("the module can't run on the given input: {}", sentence));
  throw Error(fmt::format("the folded module can't run on an input that the original takes: {}", sentence));
}

c10::IValue run(jit::Module& module, const std::vector<c10::IValue>& inputs, Which which) {
  const RandomState random;
  at::manual_seed(kSeed);
  try {
    std::vector<c10::IValue> own;
    own.reserve(inputs.size());
    const auto& arguments = module.get_method("forward").function().getSchema().arguments();
    for (size_t i = 0; i < inputs.size(); ++i) {
      own.push_back(i + 1 < arguments.size() ? as_argument(inputs[i], arguments[i + 1].type()) : inputs[i].deepcopy());
    }
    return module.forward(std::move(own));
  } catch (const c10::Error& error) {
    fail_to_run(which, error.what_without_backtrace());
  } catch (const std::exception& error) {
    fail_to_run(which, error.what());
  }
}

// max |original - folded| / max |original|, over finite values; infinite where only one of the two is finite or they differ in shape.
double relative_error(const at::Tensor& original, const at::Tensor& folded) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (original.sizes() != folded.sizes() || original.scalar_type() != folded.scalar_type()) return kInfinity;
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

class Comparison {
 public:
  explicit Comparison(CheckResult& result) : result_(result) {}

  void compare(const c10::IValue& original, const c10::IValue& folded, const std::string& where) {
    if (original.isTensor() && folded.isTensor()) return compare_tensors(original.toTensor(), folded.toTensor(), where);
    if (original.isTuple() && folded.isTuple()) {
      return compare_all(original.toTupleRef().elements(), folded.toTupleRef().elements(), where);
    }
    if (original.isList() && folded.isList()) return compare_all(original.toListRef(), folded.toListRef(), where);
    if (original.isGenericDict() && folded.isGenericDict()) {
      return compare_dicts(original.toGenericDict(), folded.toGenericDict(), where);
    }
    if (original.isObject() || original != folded) fail(where);
  }

 private:
  void compare_tensors(const at::Tensor& original, const at::Tensor& folded, const std::string& where) {
    if (!original.defined() && !folded.defined()) return;
    if (original.defined() != folded.defined()) return fail(where);
    const double error = relative_error(original, folded);
    const double allowed = tolerance(original.scalar_type());
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

  void fail(const std::string& where) {
    result_.passed = false;
    result_.largest_error = std::numeric_limits<double>::infinity();
    result_.worst_output = where;
    worst_ = std::numeric_limits<double>::infinity();
  }

  CheckResult& result_;
  double worst_ = 0;
};

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

CheckResult check(jit::Module original, jit::Module folded, const std::vector<std::vector<c10::IValue>>& inputs) {
  const at::NoGradGuard no_grad;
  if (inputs.empty()) throw Error("there are no inputs to compare the modules on");
  CheckResult result;
  result.passed = true;
  Comparison comparison(result);
  const State original_state(original);
  const State folded_state(folded);
  for (const auto& tuple : inputs) {
    const c10::IValue expected = run(original, tuple, Which::original);
    comparison.compare(expected, run(folded, tuple, Which::folded), "output");
    ++result.inputs;
  }
  return result;
}

}  // namespace bnfold
