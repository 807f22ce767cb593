// Convolutions of a single pixel, which become linear layers.
#include "fuse/pixel.h"

#include "support/fused.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class Pixels : public Fused {
 protected:
  // reduce [3, 4, 1, 1] and expand [4, 3, 1, 1] of squeeze and excitation, wide [3, 4, 3, 3] and grouped [4, 2, 1, 1]
  static Model model(const std::string& statements) {
    Model model;
    model.layer("reduce", {3, 4, 1, 1}, 3).layer("expand", {4, 3, 1, 1}, 4).layer("wide", {3, 4, 3, 3}, 3);
    model.layer("grouped", {4, 2, 1, 1}, 4).forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  static std::string reduced(const std::string& value) { return conv("reduce", value); }

  // How many linear layers there are; compared with the original on an image, two larger ones, and none, in memory and from a file.
  int64_t linears(const Model& model) const {
    const OptimizeResult result = optimize_for_inference(model.module, {x});
    for (const jit::Module& module : with_reloaded(result.module)) {
      for (const at::Tensor& input : {x, at::randn({2, 4, 8, 11}), at::randn({0, 4, 6, 7})}) {
        expect_same(model.module, module, input);
      }
    }
    return count_nodes(result.module, "aten::linear");
  }

  static void expect_same(const jit::Module& expected, const jit::Module& actual, const at::Tensor& input) {
    const auto [one, other] = outputs_of(expected, actual, input);
    expect_near(one, other);
    EXPECT_EQ(one.is_contiguous(), other.is_contiguous());
  }

  const at::Tensor x = at::randn({1, 4, 6, 7});
};

TEST_F(Pixels, AreRowsOfALinearLayer) {
  for (const char* pixel :
       {"torch.adaptive_avg_pool2d(x, [1, 1])", "torch.adaptive_max_pool2d(x, [1, 1])[0]", "x.mean([2, 3], True)",
        "x.mean([-1, -2], True)", "x.sum([3, 2], True)", "torch.amax(x, [2, 3], True)", "torch.relu(x.mean([2, 3], True))"}) {
    EXPECT_EQ(linears(model("return " + reduced(pixel))), 1) << pixel;
  }
  EXPECT_EQ(linears(model("return torch.conv2d(x.mean([2, 3], True), self.reduce.weight)")), 1);
}

TEST_F(Pixels, AreRowsFromLayerToLayer) {
  const std::string excited = "torch.sigmoid(" + conv("expand", "torch.relu_(" + reduced("x.mean([2, 3], True)") + ")") + ")";
  EXPECT_EQ(linears(model("return x * " + excited)), 2);
  EXPECT_EQ(linears(model("y = " + excited + "\nreturn y.view(y.size(0), 4)")), 2);
}

TEST_F(Pixels, AreRowsWithoutExampleInputsAndWithoutABatch) {
  const Model squeezed = model("return " + reduced("x.mean([-1, -2], True)"));
  const OptimizeResult result = optimize_for_inference(squeezed.module);
  EXPECT_EQ(count_nodes(result.module, "aten::linear"), 1);
  expect_same(squeezed.module, result.module, x);
  expect_same(squeezed.module, result.module, x[0]);
}

TEST_F(Pixels, AreNotWhatHappensToBeOneInTheExample) {
  for (const char* other : {"torch.max_pool2d(x, [6, 7])", "torch.adaptive_avg_pool2d(x, [1, 2])", "x.mean([2], True)",
                            "x.mean([1, 2], True).expand(-1, 4, -1, -1)"}) {
    EXPECT_EQ(linears(model("return " + reduced(other))), 0) << other;
  }
}

TEST_F(Pixels, NeedAWindowOfOneThatMovesByOne) {
  const std::string pixel = "x.mean([2, 3], True)";
  EXPECT_EQ(linears(model("return " + conv("wide", pixel, 1))), 0);
  EXPECT_EQ(linears(model("return " + conv("reduce", pixel, 1))), 0);
  EXPECT_EQ(linears(model("return torch.conv2d(" + pixel + ", self.reduce.weight, self.reduce.bias, [2, 2])")), 0);
  EXPECT_EQ(linears(model("return torch.conv2d(" + pixel + ", self.grouped.weight, None, [1, 1], [0, 0], [1, 1], 2)")), 0);
}

TEST_F(Pixels, NeedAConstantWeight) {
  EXPECT_EQ(linears(model("return torch.conv2d(x.mean([2, 3], True), self.reduce.weight * x.mean())")), 0);
}

TEST_F(Pixels, AreLeftWhereSomethingMayChangeTheirSizes) {
  EXPECT_EQ(linears(model("y = x.mean([2, 3], True)\ny.mul_(2)\nreturn " + reduced("y") + " + y.mean()")), 0);
}

TEST_F(Pixels, KeepTheNameOfTheirLayer) {
  const OptimizeResult result = optimize_for_inference(model("return " + reduced("x.mean([2, 3], True)")).module, {x});
  expect_left(result, "linear", FusionObstacle::product_too_small);
  EXPECT_EQ(result.unfused[0].name, "reduce");
}

}  // namespace
}  // namespace bnfold::test
