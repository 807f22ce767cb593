#include "properties.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/freeze_module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/interpreter.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <exception>
#include <map>
#include <optional>
#include <sstream>

#include "bnfold/bnfold.h"
#include "fold_graph.h"
#include "graph/graph_walk.h"
#include "module/clean_up.h"
#include "report/sentence.h"

namespace bnfold::fuzz {

namespace jit = torch::jit;

namespace {

using Values = std::map<std::string, c10::IValue>;

class Broken : public std::exception {
 public:
  Broken(std::string property, std::string detail) : property(std::move(property)), detail(std::move(detail)) {}
  std::string property;
  std::string detail;
};

constexpr const char* same_values = "the folded module computes the same";

void require(bool holds, const char* property, const std::string& detail) {
  if (!holds) throw Broken(property, detail);
}

void collect(const std::string& name, const c10::IValue& value, Values& values) {
  if (value.isTuple() || value.isTensorList() || value.isList()) {
    const auto elements = value.isTuple() ? value.toTupleRef().elements().vec() : value.toListRef().vec();
    for (size_t i = 0; i < elements.size(); ++i) collect(fmt::format("{}[{}]", name, i), elements[i], values);
  } else {
    values[name] = value.isTensor() ? c10::IValue(value.toTensor().detach().clone()) : value;
  }
}

// Empty where both are alike up to rounding.
std::string difference(const at::Tensor& expected, const at::Tensor& actual) {
  if (expected.sizes() != actual.sizes() || expected.scalar_type() != actual.scalar_type()) {
    return fmt::format("{} instead of {}", actual.toString(), expected.toString());
  }
  if (expected.numel() == 0 || !expected.is_floating_point()) return expected.equal(actual) ? "" : "other numbers";
  const at::Tensor finite = expected.isfinite();
  const bool rest_alike = at::equal(finite, actual.isfinite()) && at::equal(expected.isnan(), actual.isnan()) &&
                          at::equal(expected.isinf().logical_and(expected.gt(0)), actual.isinf().logical_and(actual.gt(0)));
  if (!rest_alike) return "NaN or infinity in other places";
  const double largest = expected.masked_fill(finite.logical_not(), 0).abs().max().item<double>();
  const double error = (expected - actual).masked_fill(finite.logical_not(), 0).abs().max().item<double>();
  return error <= 1e-9 * std::max(largest, 1e-2) ? "" : fmt::format("off by {:.2e} of {:.2e}", error, largest);
}

std::string difference(const c10::IValue& expected, const c10::IValue& actual) {
  if (expected.isTensor() && actual.isTensor()) return difference(expected.toTensor(), actual.toTensor());
  return expected == actual ? "" : "another value";
}

std::string difference(const Values& expected, const Values& actual) {
  for (const auto& [name, value] : expected) {
    const auto found = actual.find(name);
    if (found == actual.end()) return name + " is missing";
    const std::string what = difference(value, found->second);
    if (!what.empty()) return name + ": " + what;
  }
  return expected.size() == actual.size() ? "" : "more values than before";
}

Values state_of(const jit::Module& module) {
  Values state;
  for (const auto& attribute : module.named_attributes()) {
    if (!attribute.value.isModule()) collect(attribute.name, attribute.value, state);
  }
  return state;
}

// What a run did: its output, its inputs afterwards, and the attributes that it changed.
struct Run {
  std::string error;  // of a run that failed
  Values values;
  Values state;  // every attribute afterwards
};

std::string message_of(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  return first_sentence(torch_error != nullptr ? torch_error->what_without_backtrace() : error.what());
}

template <typename Call>
Run run(const Inputs& inputs, int times, const Call& call) {
  const at::NoGradGuard no_grad;
  Run result;
  Inputs own;
  for (const c10::IValue& input : inputs) {  // what is one tensor stays one
    const auto first = std::find_if(inputs.begin(), inputs.end(), [&](const c10::IValue& other) { return other.is(input); });
    const auto place = static_cast<size_t>(first - inputs.begin());
    own.push_back(place < own.size() ? own[place] : c10::IValue(input.toTensor().clone()));
  }
  try {
    for (int time = 0; time < times; ++time) collect(fmt::format("output of run {}", time), call(own), result.values);
  } catch (const std::exception& error) {
    result.error = message_of(error);
    return result;
  }
  for (size_t i = 0; i < own.size(); ++i) collect(fmt::format("input {}", i), own[i], result.values);
  return result;
}

Run run(const jit::Module& original, const Inputs& inputs, int times = 2) {
  jit::Module module = original.deepcopy();
  const Values before = state_of(module);
  Run result = run(inputs, times, [&module](const Inputs& own) { return module.forward(own); });
  result.state = state_of(module);
  for (const auto& [name, value] : result.state) {
    if (!difference(before.at(name), value).empty()) result.values.emplace("state " + name, value);
  }
  return result;
}

Run run(const std::shared_ptr<jit::Graph>& graph, const Inputs& inputs) {
  const jit::Code code(graph, "fuzzed");
  return run(inputs, 1, [&code](const Inputs& own) {
    jit::Stack stack = own;
    jit::InterpreterState(code).run(stack);
    return c10::IValue(c10::ivalue::Tuple::create(stack));
  });
}

bool is_rank_check(const std::string& error) {
  return error.rfind("a batch norm was folded into this layer for inputs of rank", 0) == 0;
}

int64_t count_norms(const jit::Graph& graph) {
  int64_t norms = 0;
  for_each_node(const_cast<jit::Graph&>(graph).block(), [&norms](const jit::Node* node) {
    norms += node->kind() == jit::aten::batch_norm || node->kind() == jit::aten::instance_norm ? 1 : 0;
  });
  return norms;
}

void require_reasons(const jit::Graph& graph, const Report& report) {
  const int64_t norms = count_norms(graph);
  require(norms <= static_cast<int64_t>(report.kept.size()), "each norm left has a reason",
          fmt::format("{} norms are left, {} reported", norms, report.kept.size()));
  for (const KeptNorm& kept : report.kept) {
    require(!kept.obstacles.empty() && !kept.detail.empty(), "each norm left has a reason", kept.name + " has no obstacle");
  }
}

class Check {
 public:
  explicit Check(const IrProgram& program) : program_(program), module_(make_module(program)) {}

  void run_all(Outcome& outcome) {
    const jit::GraphOptimizerEnabledGuard as_written(false);
    for (const int64_t larger : {0, 1}) {
      const Inputs inputs = make_inputs(program_, larger);
      const Run expected = run(module_, inputs);
      if (expected.error.empty()) runs_.emplace_back(inputs, expected);
    }
    outcome.runs = !runs_.empty();
    check_constants(outcome);
    const auto folded = fold_module(outcome);
    if (!folded) return;
    compare("folded", *folded, outcome);
    check_again(outcome);
    if (program_.seed % 4 == 0) check_file(*folded, outcome);
    if (program_.seed % 4 == 1) check_freeze(outcome);
    if (program_.seed % 4 == 2) check_optimized(*folded, outcome);
  }

  // Whether PyTorch's own passes leave what the module that came in computes. They drop a norm that trains where nobody reads its output, and
  // what is written into the output of a dropout that does not train, which is its input.
  bool torch_is_exact() const {
    const jit::Module flattened = jit::freeze_module(module_);
    for (const auto& [inputs, unused] : runs_) {
      const auto new_run = [this, &inputs = inputs] { return run(make_module(program_), inputs, 3); };
      const Run optimized = new_run();
      const jit::GraphOptimizerEnabledGuard as_written(false);
      const Run expected = new_run();
      if (!difference(expected.values, optimized.values).empty()) return false;
      if (!difference(without_state(expected).values, without_state(run(flattened, inputs, 3)).values).empty()) return false;
    }
    return true;
  }

 private:
  Options options() const {
    Options options;
    if (!program_.knows_ranks) return options;
    for (const TensorSpec& input : program_.inputs) options.input_ranks.emplace_back(input.sizes.size());
    return options;
  }

  std::optional<jit::Module> fold_module(Outcome& outcome) {
    const std::string graph = module_.get_method("forward").graph()->toString();
    const Values state = state_of(module_);
    std::optional<jit::Module> folded;
    try {
      FoldResult result = bnfold::fold(module_, options());
      folded = result.module;
      outcome.report = result.report;
    } catch (const Error& error) {
      outcome.refusal = error.what();
    }
    require(module_.get_method("forward").graph()->toString() == graph, "the graph that came in is unchanged", "it changed");
    require(difference(state, state_of(module_)).empty(), "the module that came in is unchanged",
            difference(state, state_of(module_)));
    if (!folded) {
      require(!outcome.runs || !stock_freeze(), "what torch can run and freeze can be folded", outcome.refusal);
      return std::nullopt;
    }
    const auto after = folded->get_method("forward").graph();
    after->lint();
    require_reasons(*after, outcome.report);
    return folded;
  }

  void compare(const char* which, const jit::Module& module, Outcome& outcome) const {
    for (const auto& [inputs, expected] : runs_) compare(which, expected, run(module, inputs), program_.knows_ranks, outcome);
  }

  static void compare(const std::string& which, const Run& expected, const Run& actual, bool knows_ranks, Outcome& outcome) {
    if (is_rank_check(actual.error) && !knows_ranks) {
      outcome.rank_checked = true;
      return;
    }
    require(actual.error.empty(), "the folded module runs where the original does", which + ": " + actual.error);
    Values left;  // statistics that only such a norm reads go with it
    for (const auto& [name, value] : expected.values) {
      const bool gone = name.rfind("state ", 0) == 0 && actual.state.count(name.substr(6)) == 0;
      if (!gone) left.emplace(name, value);
    }
    const std::string what = difference(left, actual.values);
    require(what.empty(), same_values, which + ": " + what);
  }

  // Dead code that reads a value may hold a norm back the first time, and so may a branch that PyTorch can decide once a norm is gone.
  void check_again(Outcome& outcome) const {
    const FoldResult once = bnfold::fold(module_, options());
    const FoldResult twice = bnfold::fold(once.module, options());
    const FoldResult thrice = bnfold::fold(twice.module, options());
    require(thrice.report.folded.empty(), "folding again and again folds no more",
            thrice.report.folded.empty() ? "" : thrice.report.folded.front().name);
    compare("folded twice", twice.module, outcome);
  }

  // Some graphs that no compiler wrote can't be written to a file, folded or not.
  static std::optional<jit::Module> through_file(const jit::Module& module) {
    std::stringstream file;
    try {
      module.save(file);
      return jit::load(file);
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }

  void check_file(const jit::Module& folded, Outcome& outcome) const {
    const auto original = through_file(module_);
    if (!original) return;
    for (const auto& [inputs, expected] : runs_) {
      const Run loaded = run(*original, inputs);
      if (!loaded.error.empty() || !difference(expected.values, loaded.values).empty()) return;
    }
    const auto loaded = through_file(folded);
    require(loaded.has_value(), "the folded module can be written and loaded", "the original can");
    compare("loaded", *loaded, outcome);
    const FoldResult from_file = bnfold::fold(*original, options());
    compare("loaded and folded", from_file.module, outcome);
  }

  std::optional<jit::Module> stock_freeze() const {
    try {
      return jit::freeze(module_);
    } catch (const std::exception&) {
      return std::nullopt;
    }
  }

  // torch::jit::freeze is not exact itself: only where it is on the module that came in, the folded one must be.
  void check_freeze(Outcome& outcome) const {
    const auto stock = stock_freeze();
    if (!stock) return;
    for (const auto& [inputs, expected] : runs_) {
      const Run frozen = run(*stock, inputs);
      if (!frozen.error.empty() || !difference(expected.values, frozen.values).empty()) return;
    }
    const jit::Module ours = bnfold::freeze(module_).module;  // which is told no ranks
    for (const auto& [inputs, expected] : runs_) {
      compare("frozen", expected, run(ours, inputs), /*knows_ranks=*/false, outcome);
    }
  }

  // The optimizer drops norms that train where nobody reads their output, in one module and not in the other: their statistics don't count.
  void check_optimized(const jit::Module& folded, Outcome& outcome) const {
    const jit::GraphOptimizerEnabledGuard optimized(true);
    for (const auto& [inputs, unused] : runs_) {
      const Run expected = without_state(run(module_, inputs, 3));
      if (expected.error.empty()) {
        compare("optimized", expected, without_state(run(folded, inputs, 3)), program_.knows_ranks, outcome);
      }
    }
  }

  static Run without_state(Run run) {
    for (const auto& [name, value] : run.state) run.values.erase("state " + name);
    return run;
  }

  // What the pass is given: the executor drops dead code before it runs it.
  std::shared_ptr<jit::Graph> constants() const {
    auto graph = with_constants(module_);
    if (graph) jit::EliminateDeadCode(graph);
    return graph;
  }

  std::shared_ptr<jit::Graph> fold_constants() const {
    auto graph = constants();
    if (!graph) return nullptr;
    ParameterStore store(graph);
    Report report;
    fold_graph(*graph, FoldSettings(), store, report);
    clean_up(graph);
    graph->lint();
    require_reasons(*graph, report);
    return graph;
  }

  // A run may change the constants, so each has its own.
  void check_constants(Outcome& outcome) const {
    if (!fold_constants()) return;
    for (const auto& [inputs, unused] : runs_) {
      const Run expected = run(constants(), inputs);
      if (expected.error.empty())
        compare("folded constants", expected, run(fold_constants(), inputs), /*knows_ranks=*/false, outcome);
    }
  }

  const IrProgram& program_;
  jit::Module module_;
  std::vector<std::pair<Inputs, Run>> runs_;  // those of the module that came in, where torch can run it
};

}  // namespace

Outcome check(const IrProgram& program) {
  Outcome outcome;
  std::optional<Check> check;
  try {
    check.emplace(program).run_all(outcome);
  } catch (const Broken& broken) {
    if (broken.property == same_values && !check->torch_is_exact()) return {};
    outcome.broken = broken.property;
    outcome.detail = broken.detail;
  } catch (const std::exception& error) {
    outcome.broken = "nothing but bnfold::Error is thrown";
    outcome.detail = message_of(error);
  }
  return outcome;
}

}  // namespace bnfold::fuzz
