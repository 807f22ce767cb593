// Linear layers that become steps of oneDNN.
#include "fuse/linear.h"

#include <fmt/format.h>

#include "support/fused.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class FusedLinear : public FusedLayers {
 protected:
  // large [512, 256] and small [5, 512], with a bias
  static Model model(const std::string& statements) {
    Model model;
    model.layer("large", {512, 256}, 512).layer("small", {5, 512}, 5).forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  // Optimized for x, and compared with the original on it and on other numbers of rows, in memory and from a file.
  OptimizeResult optimized(const Model& model) const {
    const OptimizeResult result = optimize_for_inference(model.module, {x});
    for (const jit::Module& module : with_reloaded(result.module)) {
      for (const at::Tensor& input : {x, at::randn({1, 3, 256}), at::randn({2, 90, 256}), at::randn({0, 80, 256})}) {
        expect_same(model.module, module, input);
      }
    }
    return result;
  }

  static void expect_same(const jit::Module& expected, const jit::Module& actual, const at::Tensor& input) {
    const auto [one, other] = outputs_of(expected, actual, input);
    expect_near(one, other, 1e-4);
    EXPECT_EQ(one.strides(), other.strides());
  }

  OptimizeResult optimized_of(const std::string& statements) const override { return optimized(model(statements)); }

  static inline const std::string kLarge = "torch.linear(x, self.large.weight, self.large.bias)";
  const at::Tensor x = at::randn({2, 80, 256});
};

TEST_F(FusedLinear, TakesTheActivation) {
  for (const char* activation : {"relu", "relu_", "sigmoid", "tanh", "silu", "gelu", "hardswish", "hardsigmoid", "relu6"}) {
    const std::string name = activation;
    expect_steps(fmt::format("return torch.{}({})", name, kLarge), {"large: linear, " + (name == "relu_" ? "relu" : name)});
  }
  expect_steps("return torch.gelu(" + kLarge + ", approximate=\"tanh\")", {"large: linear, gelu"});
  expect_steps("return torch.hardtanh(" + kLarge + ", -0.5, 0.25)", {"large: linear, hardtanh"});
}

TEST_F(FusedLinear, TakesALayerAlone) {
  expect_steps("return " + kLarge, {"large: linear"});
  expect_steps("return torch.linear(x, self.large.weight)", {"large: linear"});
  expect_steps("return torch.linear(x.transpose(0, 1), self.large.weight)", {"large: linear"});
}

TEST_F(FusedLinear, LeavesAnActivationWhoseInputIsReadTwice) {
  expect_left("y = " + kLarge + "\nreturn torch.relu(y) + y.mean()", "relu", FusionObstacle::value_has_other_readers);
}

TEST_F(FusedLinear, LeavesAnActivationBehindAWriteIntoTheInput) {
  const std::string write = "v = torch.tanh(x)\nz = v[:, :1]\ny = torch.linear(v, self.large.weight)\nz.mul_(2)\n";
  expect_left(write + "return torch.relu(y) + v.mean()", "relu", FusionObstacle::value_changed_in_place);
}

TEST_F(FusedLinear, LeavesAProductThatIsAsFastWithout) {
  expect_left("y = " + kLarge + "\nreturn torch.linear(y, self.small.weight)", "linear", FusionObstacle::product_too_small);
  const OptimizeResult one_row = optimize_for_inference(model("return " + kLarge).module, {at::randn({1, 256})});
  expect_left(one_row, "linear", FusionObstacle::product_too_small);
}

TEST_F(FusedLinear, LeavesLayersWithoutExampleInputs) {
  expect_left(optimize_for_inference(model("return " + kLarge).module), "linear", FusionObstacle::sizes_unknown);
}

TEST_F(FusedLinear, LeavesAVector) {
  Model dot;
  dot.parameter("large.weight", at::randn({256})).forward("return torch.linear(x, self.large.weight)");
  dot.module.to(at::kFloat);
  expect_left(optimized(dot), "linear", FusionObstacle::weight_unsupported);
}

TEST_F(FusedLinear, LeavesALayerWhoseRowsNoRunTold) {
  const std::string branch =
      "if bool(x.sum() > 1e9):\n  y = torch.sigmoid(x)\nelse:\n  y = torch.linear(%, self.large.weight)\nreturn y";
  expect_steps(std::string(branch).replace(branch.find('%'), 1, "x"), {"large: linear"});
  expect_left(std::string(branch).replace(branch.find('%'), 1, "torch.tanh(x)"), "linear", FusionObstacle::sizes_unknown);
}

TEST_F(FusedLinear, LeavesWeightsThatAreComputedAndOtherDtypes) {
  expect_left("return torch.linear(x, self.large.weight * x.mean())", "linear", FusionObstacle::weight_not_static);
  Model wide = model("return " + kLarge);
  wide.module.to(at::kDouble);
  expect_left(optimize_for_inference(wide.module, {x.to(at::kDouble)}), "linear", FusionObstacle::weight_unsupported);
}

TEST_F(FusedLinear, ReadsWhatAConvolutionMakes) {
  Model patches;
  patches.layer("conv", {256, 3, 4, 4}, 256).layer("large", {512, 256}, 512);
  patches.forward("y = torch.conv2d(x, self.conv.weight, self.conv.bias, [4, 4]).flatten(2).transpose(1, 2)\nreturn torch.gelu(" +
                  std::string("torch.linear(y, self.large.weight, self.large.bias))"));
  patches.module.to(at::kFloat);
  const at::Tensor image = at::randn({1, 3, 48, 48});
  const OptimizeResult result = optimize_for_inference(patches.module, {image});
  expect_fused(result, {"conv: conv2d", "large: linear, gelu"});
  expect_same(patches.module, result.module, image);
}

}  // namespace
}  // namespace bnfold::test
