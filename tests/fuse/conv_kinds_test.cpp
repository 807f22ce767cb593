// Convolutions in three dimensions and transposed ones, which become steps of oneDNN too.
#include <fmt/format.h>

#include "fuse/conv.h"
#include "support/fused.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class FusedKinds : public Fused {
 protected:
  // Optimized for x, and compared with the original on it and on `other`, twice, in memory and from a file.
  static OptimizeResult optimized(const Model& model, const at::Tensor& x, const at::Tensor& other) {
    const OptimizeResult result = optimize_for_inference(model.module, {x});
    for (const jit::Module& module : with_reloaded(result.module)) {
      for (const at::Tensor& input : {x, other, x}) expect_same(model.module, module, input);
    }
    return result;
  }

  static void expect_same(const jit::Module& expected, const jit::Module& actual, const at::Tensor& input) {
    const auto [one, other] = outputs_of(expected, actual, input);
    expect_near(one, other);
    EXPECT_EQ(one.is_contiguous(), other.is_contiguous());
  }
};

// ---- three dimensions

class Volumes : public FusedKinds {
 protected:
  // conv [6, 4, 3, 3, 3], again [6, 6, 3, 3, 3] and grouped [8, 2, 1, 3, 3]
  static Model model(const std::string& statements) {
    Model model;
    model.layer("conv", {6, 4, 3, 3, 3}, 6).layer("again", {6, 6, 3, 3, 3}, 6).layer("grouped", {8, 2, 1, 3, 3}, 8);
    model.forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  static std::string conv(const std::string& layer, const std::string& value) {
    return fmt::format("torch.conv3d({1}, self.{0}.weight, self.{0}.bias, [1, 1, 1], [1, 1, 1])", layer, value);
  }

  OptimizeResult optimized_of(const std::string& statements) const {
    SCOPED_TRACE(statements);
    return optimized(model(statements), x, at::randn({1, 4, 3, 8, 5}));
  }

  const at::Tensor x = at::randn({2, 4, 5, 6, 7});
};

TEST_F(Volumes, TakeTheActivation) {
  expect_fused(optimized_of("return torch.relu(" + conv("conv", "x") + ")"), {"conv: conv3d, relu"});
  expect_fused(optimized_of("return torch.relu(torch.conv3d(x, self.grouped.weight, None, [2, 1, 2], [0, 1, 2], [1, 1, 2], 2))"),
               {"grouped: conv3d, relu"});
}

TEST_F(Volumes, TakeTheSum) {
  const std::string u = "u = torch.relu(" + conv("conv", "x") + ")\n";
  const std::string inner = "torch.relu(" + conv("again", "u") + ")";
  const OptimizeResult result = optimized_of(u + "return torch.relu(" + conv("again", inner) + " + u)");
  expect_fused(result, {"conv: conv3d, relu", "again: conv3d, relu", "again: conv3d, add, relu"});
  EXPECT_EQ(count_nodes(result.module, "mkldnn::_convolution_pointwise_"), 1);
}

TEST_F(Volumes, TakeTheSumOfOneFrame) {
  const Model sum = model("u = torch.relu(" + conv("conv", "x") + ")\nreturn torch.relu(" + conv("again", "u") + " + u)");
  const at::Tensor frame = at::randn({1, 4, 1, 8, 8});
  expect_fused(optimized(sum, frame, x), {"conv: conv3d, relu", "again: conv3d, add, relu"});
}

TEST_F(Volumes, LeaveASumThatMightBeBroadcastInTime) {
  const Model sum =
      model("u = torch.relu(" + conv("conv", "x") + ")\nreturn torch.relu(" + conv("again", "u") + " + u.mean(2, True))");
  const at::Tensor frame = at::randn({1, 4, 1, 8, 8});
  expect_left(optimized(sum, frame, x), "add", FusionObstacle::sizes_unknown);
}

TEST_F(Volumes, TakeThePadding) {
  const std::string padded = "torch.relu(torch.conv3d(torch.pad(x, {}), self.conv.weight, self.conv.bias))";
  expect_fused(optimized_of("return " + fmt::format(fmt::runtime(padded), "[1, 1, 2, 2, 3, 3]")), {"conv: pad, conv3d, relu"});
  expect_fused(optimized_of("return " + fmt::format(fmt::runtime(padded), "[1, 1]")), {"conv: pad, conv3d, relu"});
  expect_left(optimized_of("return " + fmt::format(fmt::runtime(padded), "[1, 1, 1, 1, 2, 1]")), "pad",
              FusionObstacle::operand_unsupported);
}

TEST_F(Volumes, KeepTheirOrderForWhatAsksForIt) {
  optimized_of("y = torch.relu(" + conv("conv", "x") + ")\nreturn y.view(y.size(0), 6, -1)");
  optimized_of("y = torch.max_pool3d(" + conv("conv", "x") + ", [2, 2, 2])\nreturn y.flatten(1).view(-1)");
}

TEST_F(Volumes, NeedABatchAndNoExample) {
  const Model plain = model("return torch.relu(" + conv("conv", "x") + ")");
  expect_left(optimize_for_inference(plain.module, {x[0]}), "conv3d", FusionObstacle::input_not_batched);
  const OptimizeResult result = optimize_for_inference(plain.module);
  expect_fused(result, {"conv: conv3d, relu"});
  expect_same(plain.module, result.module, x);
}

// ---- transposed

class Transposed : public FusedKinds {
 protected:
  // up [4, 6, 4, 3], grouped [4, 3, 3, 3], volume [4, 6, 2, 2, 2] and line [4, 6, 3]
  static Model model(const std::string& statements) {
    Model model;
    model.layer("up", {4, 6, 4, 3}, 6).layer("grouped", {4, 3, 3, 3}, 6);
    model.layer("volume", {4, 6, 2, 2, 2}, 6).layer("line", {4, 6, 3}, 6).forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  OptimizeResult optimized_of(const std::string& statements) const {
    SCOPED_TRACE(statements);
    return optimized(model(statements), x, at::randn({1, 4, 3, 8}));
  }

  static std::string up(const std::string& value) {
    return fmt::format("torch.conv_transpose2d({}, self.up.weight, self.up.bias, [2, 3], [1, 0], [1, 2], 1, [2, 1])", value);
  }

  const at::Tensor x = at::randn({2, 4, 5, 6});
};

TEST_F(Transposed, TakeTheActivation) {
  for (const char* activation : {"relu", "relu_", "tanh", "silu", "gelu", "sigmoid"}) {
    const std::string name = activation;
    expect_fused(optimized_of(fmt::format("return torch.{}({})", name, up("x"))),
                 {"up: conv_transpose2d, " + (name == "relu_" ? "relu" : name)});
  }
  expect_fused(optimized_of("return torch.hardtanh(torch.conv_transpose2d(x, self.up.weight), -0.5, 0.25)"),
               {"up: conv_transpose2d, hardtanh"});
}

TEST_F(Transposed, AreStepsInEverySpelling) {
  expect_fused(optimized_of("return torch._convolution(x, self.up.weight, self.up.bias, [2, 2], [1, 1], [1, 1], True, [1, 1], 1, "
                            "False, False, True, True)"),
               {"up: _convolution"});
  const Model volume = model("return torch.relu(torch.conv_transpose3d(x, self.volume.weight, self.volume.bias, [2, 2, 2]))");
  expect_fused(optimized(volume, at::randn({2, 4, 3, 4, 5}), at::randn({1, 4, 2, 6, 3})), {"volume: conv_transpose3d, relu"});
}

TEST_F(Transposed, AreTheAddendOfAnother) {
  Model residual;
  residual.layer("up", {4, 6, 2, 2}, 6).layer("conv", {6, 6, 3, 3}, 6);
  residual.forward("u = torch.relu(torch.conv_transpose2d(x, self.up.weight, self.up.bias, [2, 2]))\nreturn " +
                   conv("conv", "torch.relu(" + conv("conv", "u", 1) + ")", 1) + " + u");
  residual.module.to(at::kFloat);
  const OptimizeResult result = optimized(residual, x, at::randn({1, 4, 3, 8}));
  expect_fused(result, {"up: conv_transpose2d, relu", "conv: conv2d, relu", "conv: conv2d, add"});
  EXPECT_EQ(count_nodes(result.module, "mkldnn::_convolution_pointwise_"), 1);
}

TEST_F(Transposed, LeaveThePadding) {
  expect_fused(optimized_of("return " + up("torch.pad(x, [1, 1, 1, 1])")), {"up: conv_transpose2d"});
}

TEST_F(Transposed, LeaveTheSum) {
  expect_left(optimized_of("return torch.relu(" + up("x") + " + torch.tanh(" + up("torch.sigmoid(x)") + "))"), "add",
              FusionObstacle::operand_unsupported);
}

TEST_F(Transposed, StayWithGroupsAndInOneDimension) {
  expect_left(optimized_of("return torch.conv_transpose2d(x, self.grouped.weight, None, [1, 1], [0, 0], [0, 0], 2)"),
              "conv_transpose2d", FusionObstacle::layer_unsupported);
  const Model line = model("return torch.conv_transpose1d(x, self.line.weight)");
  expect_left(optimized(line, at::randn({2, 4, 9}), at::randn({1, 4, 5})), "conv_transpose1d", FusionObstacle::layer_unsupported);
}

TEST_F(Transposed, StayWhereANumberIsComputed) {
  expect_left(optimized_of("return torch.conv_transpose2d(x, self.up.weight, None, [2, 2], [0, 0], [x.size(0) - 1, 0])"),
              "conv_transpose2d", FusionObstacle::weight_not_static);
}

TEST_F(Transposed, RunWithoutExampleInputs) {
  const Model plain = model("return torch.relu(" + up("x") + ")");
  const OptimizeResult result = optimize_for_inference(plain.module);
  expect_fused(result, {"up: conv_transpose2d, relu"});
  expect_same(plain.module, result.module, x);
}

// ---- half and bfloat16

class Narrow : public FusedKinds, public ::testing::WithParamInterface<at::ScalarType> {
 protected:
  // A residual block of convolutions and a linear layer, in the dtype.
  static Model model() {
    Model model;
    model.layer("conv", {6, 4, 3, 3}, 6)
        .layer("again", {6, 6, 3, 3}, 6)
        .layer("up", {6, 4, 2, 2}, 4)
        .layer("head", {128, 64}, 128);
    model.forward("u = torch.relu(" + conv("conv", "x", 1) + ")\nu = torch.relu(" +
                  conv("again", "torch.relu(" + conv("again", "u", 1) + ")", 1) +
                  " + u)\nu = torch.silu(torch.conv_transpose2d(u, self.up.weight, self.up.bias, [2, 2]))\nreturn "
                  "torch.relu(torch.linear(u, self.head.weight, self.head.bias))");
    model.module.to(GetParam());
    return model;
  }

  // Of what `module` returns for x, relative to what the original computes in double.
  double error(jit::Module original, jit::Module module) const {
    const at::NoGradGuard no_grad;
    const at::Tensor result = module.forward({x}).toTensor().to(at::kDouble);
    original = original.deepcopy();
    original.to(at::kDouble);
    const at::Tensor reference = original.forward({x.to(at::kDouble)}).toTensor();
    return ((result - reference).abs().max() / reference.abs().max()).item<double>();
  }

  const at::Tensor x = at::randn({8, 4, 32, 32}).to(GetParam());
};

TEST_P(Narrow, AreStepsWhereTheCpuComputesThem) {
  const Model block = model();
  const OptimizeResult result = optimize_for_inference(block.module, {x});
  if (!can_be_packed(x)) {
    EXPECT_EQ(name(result.unfused.at(0).obstacle), name(FusionObstacle::weight_unsupported));
    return;
  }
  expect_fused(result, {"conv: conv2d, relu", "again: conv2d, relu", "again: conv2d, add, relu", "up: conv_transpose2d, silu",
                        "head: linear, relu"});
  const double before = error(block.module, block.module);
  for (const jit::Module& module : with_reloaded(result.module)) EXPECT_LE(error(block.module, module), 1.5 * before);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Narrow, ::testing::Values(at::kHalf, at::kBFloat16));

}  // namespace
}  // namespace bnfold::test
