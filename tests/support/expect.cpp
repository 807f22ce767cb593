#include "support/expect.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "graph/graph_walk.h"

namespace bnfold::test {

namespace jit = torch::jit;

namespace {

// Equal values, NaN equal to NaN; tensors without data equal by their sizes.
bool same(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  return a.is_meta() || at::eq(a, b).logical_or(at::ne(a, a).logical_and(at::ne(b, b))).all().item<bool>();
}

// Everything about a module that a fold must not touch.
struct Snapshot {
  std::string graphs;
  std::vector<std::pair<std::string, at::Tensor>> tensors;

  static Snapshot of(const jit::Module& module) {
    Snapshot snapshot;
    for (const jit::Method& method : module.get_methods()) snapshot.graphs += method.graph()->toString();
    for (const auto& entry : module.named_attributes()) {
      if (entry.value.isTensor()) snapshot.tensors.emplace_back(entry.name, entry.value.toTensor().clone());
    }
    return snapshot;
  }

  void expect_unchanged(const jit::Module& module) const {
    const Snapshot now = of(module);
    EXPECT_EQ(graphs, now.graphs);
    ASSERT_EQ(tensors.size(), now.tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ(tensors[i].first, now.tensors[i].first);
      EXPECT_TRUE(same(tensors[i].second, now.tensors[i].second)) << tensors[i].first;
    }
  }
};

c10::IValue in_double(const c10::IValue& value) {
  if (!value.isTensor()) return value;
  const at::Tensor copy = value.toTensor().clone();
  return copy.is_floating_point() ? copy.to(at::kDouble) : copy;
}

c10::IValue as_it_is(const c10::IValue& value) {
  return value.isTensor() ? c10::IValue(value.toTensor().clone()) : value;
}

// The tensor that the module returns, or those in its tuple, for copies of the inputs.
std::vector<at::Tensor> outputs_of(jit::Module module, const Inputs& inputs, c10::IValue (*copy)(const c10::IValue&)) {
  Inputs own;
  for (const c10::IValue& input : inputs) own.push_back(copy(input));
  const c10::IValue output = module.forward(own);
  if (output.isTensor()) return {output.toTensor()};
  std::vector<at::Tensor> parts;
  for (const c10::IValue& part : output.toTupleRef().elements()) parts.push_back(part.toTensor());
  return parts;
}

at::Tensor flat_output(const jit::Module& module, const Inputs& inputs) {
  std::vector<at::Tensor> parts;
  for (const at::Tensor& part : outputs_of(module, inputs, in_double)) parts.push_back(part.flatten().to(at::kDouble));
  return at::cat(parts);
}

// How far the rounding of folded weights to their dtype may move an output that is computed in double.
double weight_rounding(const jit::Module& module) {
  double unit = 1e-12;
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.scalar_type() == at::kFloat) unit = std::max(unit, 1e-6);
    if (parameter.scalar_type() == at::kHalf) unit = std::max(unit, 5e-3);
    if (parameter.scalar_type() == at::kBFloat16) unit = std::max(unit, 4e-2);
  }
  return unit;
}

std::string table_of(const Report& report) {
  return "the report was\n" + report.to_table();
}

}  // namespace

int64_t count_nodes(const jit::Module& module, const std::string& kind) {
  int64_t count = 0;
  for (const jit::Method& method : module.get_methods()) {
    for_each_node(method.graph()->block(), [&](const jit::Node* node) { count += node->kind().toQualString() == kind ? 1 : 0; });
  }
  return count;
}

std::vector<std::string> state_names(const jit::Module& module) {
  std::vector<std::string> names;
  for (const auto& entry : module.named_parameters()) names.push_back(entry.name);
  for (const auto& entry : module.named_buffers()) names.push_back(entry.name);
  return names;
}

void expect_same_output(const jit::Module& original, const jit::Module& folded, const Inputs& inputs) {
  const at::NoGradGuard no_grad;
  jit::Module reference = original.deepcopy();
  jit::Module result = folded.deepcopy();
  const double allowed = weight_rounding(folded);
  reference.to(at::kDouble);
  result.to(at::kDouble);
  const at::Tensor expected = flat_output(reference, inputs);
  for (int run = 0; run < 3; ++run) {
    const at::Tensor actual = flat_output(result, inputs);
    ASSERT_EQ(expected.sizes(), actual.sizes());
    const double magnitude = expected.numel() == 0 ? 0 : expected.abs().max().item<double>();
    const double error = expected.numel() == 0 ? 0 : (expected - actual).abs().max().item<double>();
    EXPECT_LE(error, allowed * magnitude) << "run " << run;
  }
}

void expect_same_output_in_own_dtype(const jit::Module& original, const jit::Module& folded, const Inputs& inputs,
                                     double allowed) {
  const at::NoGradGuard no_grad;
  jit::Module reference = original.deepcopy();
  reference.to(at::kDouble);
  const std::vector<at::Tensor> exact = outputs_of(reference, inputs, in_double);
  std::vector<at::Tensor> before;
  try {
    before = outputs_of(original.deepcopy(), inputs, as_it_is);
  } catch (const std::exception& error) {
    const bool unsupported = std::string(error.what()).find("not implemented for 'Half'") != std::string::npos;
    ASSERT_TRUE(unsupported) << error.what();
    return;
  }
  const std::vector<at::Tensor> after = outputs_of(folded.deepcopy(), inputs, as_it_is);
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(before[i].scalar_type(), after[i].scalar_type()) << "output " << i;
    ASSERT_EQ(before[i].sizes(), after[i].sizes()) << "output " << i;
    const double error = (after[i].to(at::kDouble) - exact[i]).abs().max().item<double>();
    EXPECT_LE(error, allowed * exact[i].abs().max().item<double>()) << "output " << i;
  }
}

Options with_rank(int64_t rank) {
  Options options;
  options.input_ranks = {rank};
  return options;
}

FoldResult expect_folded(const jit::Module& module, const Inputs& inputs, const std::string& name, const std::string& into,
                         const Options& options) {
  const Snapshot before = Snapshot::of(module);
  FoldResult result = fold(module, options);
  before.expect_unchanged(module);
  const auto record = std::find_if(result.report.folded.begin(), result.report.folded.end(),
                                   [&](const FoldedNorm& norm) { return norm.name == name && fmt::format("{}", fmt::join(norm.into, ", ")) == into; });
  EXPECT_NE(record, result.report.folded.end()) << name << " was not folded into " << into << "; " << table_of(result.report);
  for (const std::string& entry : state_names(result.module))
    EXPECT_NE(entry.rfind(name + ".", 0), 0U) << entry << " is still there";
  expect_same_output(module, result.module, inputs);
  before.expect_unchanged(module);
  return result;
}

FoldResult expect_kept(const jit::Module& module, const Inputs& inputs, const std::string& name, Reason reason,
                       const std::string& detail, const Options& options) {
  const Snapshot before = Snapshot::of(module);
  FoldResult result = fold(module, options);
  before.expect_unchanged(module);
  const auto record =
      std::find_if(result.report.kept.begin(), result.report.kept.end(), [&](const KeptNorm& norm) { return norm.name == name; });
  EXPECT_NE(record, result.report.kept.end()) << name << " was not kept; " << table_of(result.report);
  if (record == result.report.kept.end()) return result;
  EXPECT_EQ(record->reason, reason) << table_of(result.report);
  EXPECT_NE(record->detail.find(detail), std::string::npos) << record->detail;
  if (!inputs.empty()) expect_same_output(module, result.module, inputs);
  return result;
}

FoldResult expect_stopped(const jit::Module& module, const Inputs& inputs, const std::string& name, const std::string& way,
                          Reason reason, const std::string& detail, const Options& options) {
  FoldResult result = expect_unharmed(module, inputs, options);
  const auto& kept = result.report.kept;
  const auto record = std::find_if(kept.begin(), kept.end(), [&](const KeptNorm& norm) { return norm.name == name; });
  EXPECT_NE(record, kept.end()) << name << " was not kept; " << table_of(result.report);
  if (record == kept.end()) return result;
  const auto obstacle = std::find_if(record->obstacles.begin(), record->obstacles.end(),
                                     [&](const Obstacle& one) { return one.way == way && one.reason == reason; });
  EXPECT_NE(obstacle, record->obstacles.end())
      << bnfold::name(reason) << " did not stop it " << way << "; " << table_of(result.report);
  if (obstacle == record->obstacles.end()) return result;
  EXPECT_NE(obstacle->detail.find(detail), std::string::npos) << obstacle->detail;
  return result;
}

FoldResult expect_unharmed(const jit::Module& module, const Inputs& inputs, const Options& options) {
  const Snapshot before = Snapshot::of(module);
  FoldResult result = fold(module, options);
  before.expect_unchanged(module);
  if (!inputs.empty()) expect_same_output(module, result.module, inputs);
  return result;
}

}  // namespace bnfold::test
