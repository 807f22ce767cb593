#include "plan/targets.h"

#include <algorithm>
#include <array>
#include <limits>

namespace bnfold {

namespace {

struct Entry {
  Target target;
  std::string_view name;
  TargetTraits traits;
};

constexpr double kAny = std::numeric_limits<double>::infinity();

// Every norm goes where that can be, by the fold that adds the fewest operators.
constexpr Costs kFewestOperators = {1, 0, 1, kAny, kAny};

// Medians of ten settings of bench/edit_costs.py on a CPU with AVX-512, one thread.
constexpr std::array kTargets = {
    Entry{Target::libtorch, "libtorch", {kFewestOperators, /*runs_checks=*/true, /*only_backward=*/false}},
    Entry{Target::onnxruntime, "onnxruntime", {{2.9, 2.5, 3.9, 1, 0.14}, false, false}},
    Entry{Target::openvino, "openvino", {{0.87, 0.03, 0.17, 1, 0.24}, false, false}},
    Entry{Target::ncnn, "ncnn", {{0.85, 0, 0.77, 1, 0.35}, false, false}},
    Entry{Target::coreml, "coreml", {kFewestOperators, false, false}},
    Entry{Target::quantization, "quantization", {kFewestOperators, false, /*only_backward=*/true}},
};

const Entry& entry_of(Target target) {
  return *std::find_if(kTargets.begin(), kTargets.end(), [target](const Entry& entry) { return entry.target == target; });
}

}  // namespace

const std::vector<Target>& all_targets() {
  static const std::vector<Target> targets = [] {
    std::vector<Target> all;
    all.reserve(kTargets.size());
    for (const Entry& entry : kTargets) all.push_back(entry.target);
    return all;
  }();
  return targets;
}

std::string_view name(Target target) {
  return entry_of(target).name;
}

std::optional<Target> target_named(std::string_view name) {
  const auto* found = std::find_if(kTargets.begin(), kTargets.end(), [name](const Entry& entry) { return entry.name == name; });
  return found == kTargets.end() ? std::nullopt : std::optional<Target>(found->target);
}

const TargetTraits& traits_of(Target target) {
  return entry_of(target).traits;
}

}  // namespace bnfold
