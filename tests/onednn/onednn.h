// What the tests of networks share.
#pragma once

#include <torch/custom_class.h>

#include <cmath>

#include "bnfold/onednn.h"
#include "support/fused.h"

namespace bnfold::test {

class OneDnn : public Fused {
 private:
  // Counts these warnings, and lets no other one pass.
  struct MissingKernels : c10::WarningHandler {
    int count = 0;
    void process(const c10::Warning& warning) override {
      EXPECT_NE(warning.msg().find("it has no kernel for a convolution"), std::string::npos) << warning.msg();
      ++count;
    }
  };
  static MissingKernels& missing_kernels() {
    static MissingKernels one;
    return one;
  }

 protected:
  void SetUp() override {
    load_onednn();
    missing_kernels().count = 0;
    c10::WarningUtils::set_warning_handler(&missing_kernels());
    Fused::SetUp();
  }
  void TearDown() override { c10::WarningUtils::set_warning_handler(nullptr); }

  // Layers of 16 and 8 channels, in float.
  static Model model(const std::string& statements) {
    Model model;
    model.layer("conv", {16, 8, 3, 3}, 16)
        .layer("back", {8, 16, 1, 1}, 8)
        .layer("same", {8, 8, 3, 3}, 8)
        .layer("plain", {8, 8, 1, 1});
    model.layer("depthwise", {8, 1, 3, 3}, 8)
        .layer("grouped", {16, 4, 3, 3}, 16)
        .layer("doubled", {16, 1, 3, 3}, 16)
        .layer("wide", {16, 8, 3, 3}, 16)
        .layer("small", {4, 8, 1, 1}, 4)
        .layer("deep", {8, 8, 1, 3, 3}, 8);
    model.layer("few", {4, 8, 1, 1}, 4)
        .layer("one", {1, 4, 1, 1}, 1)
        .layer("fewer", {5, 4, 1, 1}, 5)
        .layer("joined", {8, 56, 1, 1}, 8);
    model.layer("turned", {8, 8, 3, 3}, 8).parameter("whole", at::randn({1, 8, 12, 10}));
    model.parameter("bound", at::randn({8, 1, 1}));
    model.forward(statements);
    for (const auto& parameter : model.module.parameters()) {
      if (parameter.scalar_type() != at::kDouble) continue;
      // What comes out of a layer is about as large as what goes in: a bound would else find the rounding errors of large numbers.
      const double terms =
          parameter.dim() < 4 ? 1 : static_cast<double>(parameter.numel()) / static_cast<double>(parameter.size(0));
      parameter.set_data((parameter / std::sqrt(terms)).to(at::kFloat));
    }
    return model;
  }

  static OptimizeResult optimized(const Model& model, const at::Tensor& input = at::randn({1, 8, 12, 10})) {
    return optimize_for_inference(model.module, {input}, {}, Runtime::onednn);
  }

  // For so many sizes networks have been made, unless this CPU has no kernel for one, of which a warning told.
  static void expect_networks(const torch::jit::Module& module, int64_t expected) {
    if (missing_kernels().count == 0) {
      EXPECT_EQ(networks(module), expected);
    } else {
      EXPECT_LE(networks(module), expected);
    }
  }

  // For how many sizes the networks of a module have been made.
  static int64_t networks(const torch::jit::Module& module) {
    int64_t all = 0;
    for (const auto& attribute : module.named_attributes(/*recurse=*/false)) {
      if (attribute.name.rfind("onednn_steps", 0) != 0) continue;
      const auto type = attribute.value.type()->expect<c10::ClassType>();
      torch::jit::Stack stack = {attribute.value};
      type->getMethod("networks").run(stack);
      all += stack.front().toInt();
    }
    return all;
  }

  // What `module` returns is what the model returns, twice each, for these inputs; and in what a file gives back.
  static void expect_same(const Model& model, const OptimizeResult& result, const std::vector<at::Tensor>& inputs) {
    for (const torch::jit::Module& module : with_reloaded(result.module)) {
      for (const at::Tensor& input : inputs) {
        for (int run = 0; run < 2; ++run) {
          const auto [expected, actual] = outputs_of(model.module, module, input);
          expect_near(expected, actual);
          EXPECT_EQ(expected.is_contiguous(), actual.is_contiguous());
        }
      }
    }
  }
};

}  // namespace bnfold::test
