// What the tests of optimized modules share.
#pragma once

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "bnfold/optimize.h"
#include "fuse/packed_weight.h"
#include "support/expect.h"
#include "support/model.h"

#include <torch/csrc/jit/serialization/import.h>

namespace bnfold::test {

class Fused : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_pack_weights()) GTEST_SKIP() << "this LibTorch has no fused steps";
    at::manual_seed(5);
  }

  // The module, and what a file gives back of it.
  static std::vector<torch::jit::Module> with_reloaded(const torch::jit::Module& module) {
    std::stringstream file;
    module.save(file);
    return {module, torch::jit::load(file)};
  }

  // What both modules return for the input, a copy each.
  static std::pair<at::Tensor, at::Tensor> outputs_of(torch::jit::Module one, torch::jit::Module other, const at::Tensor& input) {
    const at::NoGradGuard no_grad;
    return {one.forward({input.clone()}).toTensor(), other.forward({input.clone()}).toTensor()};
  }

  // Of one shape, and apart by no more than `allowed` of the largest absolute value, as bnfold::check compares: a small value beside large ones has
  // their rounding.
  static void expect_near(const at::Tensor& expected, const at::Tensor& actual, double allowed = 1e-5) {
    ASSERT_EQ(expected.sizes(), actual.sizes());
    ASSERT_EQ(expected.scalar_type(), actual.scalar_type());
    if (expected.numel() == 0) return;
    EXPECT_LE((expected - actual).abs().max().item<double>(), allowed * expected.abs().max().item<double>());
  }

  // Each as "layer: steps".
  static void expect_fused(const OptimizeResult& result, const std::vector<std::string>& expected) {
    std::vector<std::string> fused;
    for (const FusedLayer& layer : result.fused) fused.push_back(layer.name + ": " + layer.steps);
    EXPECT_EQ(fused, expected);
  }

  // One step alone, for this reason.
  static void expect_left(const OptimizeResult& result, const std::string& step, FusionObstacle obstacle) {
    ASSERT_EQ(result.unfused.size(), 1U);
    EXPECT_EQ(result.unfused[0].step, step);
    EXPECT_EQ(name(result.unfused[0].obstacle), name(obstacle)) << result.unfused[0].detail;
  }
};

// Of a model whose forward is written in statements.
class FusedLayers : public Fused {
 protected:
  virtual OptimizeResult optimized_of(const std::string& statements) const = 0;

  void expect_steps(const std::string& statements, const std::vector<std::string>& expected) const {
    SCOPED_TRACE(statements);
    expect_fused(optimized_of(statements), expected);
  }

  using Fused::expect_left;
  void expect_left(const std::string& statements, const std::string& step, FusionObstacle obstacle) const {
    SCOPED_TRACE(statements);
    expect_left(optimized_of(statements), step, obstacle);
  }
};

}  // namespace bnfold::test
