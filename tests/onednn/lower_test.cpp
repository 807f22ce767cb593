// Every operator that a network computes, and what it leaves to LibTorch.
#include "onednn/lower.h"

#include "onednn/onednn.h"

namespace bnfold::test {
namespace {

class Lower : public OneDnn {
 protected:
  // Statements that make z of y, which is [N, 8, H, W], between two layers. Both inputs have a network.
  static void expect_computed(const std::string& statements, const std::string& last) {
    SCOPED_TRACE(statements);
    const Model tested = model("y = " + conv("back", conv("conv", "x", 1)) + "\n" + statements + "\nreturn " + last);
    const OptimizeResult result = optimized(tested);
    EXPECT_GE(result.in_networks.size(), 2U);
    expect_same(tested, result,
                {at::randn({1, 8, 12, 10}), at::randn({3, 8, 12, 8}), at::randn({1, 8, 20, 16}), at::randn({2, 8, 6, 4})});
    torch::jit::Module module = result.module;
    module.forward({at::randn({1, 8, 14, 10})});
    expect_networks(module, 5);
  }

  // The layers are in a network which runs for no size.
  static void expect_left(const std::string& statements, const at::Tensor& input = at::randn({1, 8, 12, 10})) {
    SCOPED_TRACE(statements);
    const Model tested = model("y = " + conv("back", conv("conv", "x", 1)) + "\n" + statements + "\nreturn z");
    const OptimizeResult result = optimized(tested, input);
    EXPECT_EQ(result.in_networks.size(), 2U);
    expect_same(tested, result, {input});
    expect_networks(result.module, 0);
  }
};

constexpr const char* kThrough = "torch.conv2d(z, self.same.weight, self.same.bias, padding=1)";

TEST_F(Lower, Activations) {
  for (const char* function :
       {"torch.relu(y)", "torch.relu6(y)", "torch.silu(y)", "torch.sigmoid(y)", "torch.tanh(y)", "torch.hardswish(y)",
        "torch.hardsigmoid(y)", "torch.leaky_relu(y, 0.2)", "torch.hardtanh(y, -0.4, 0.7)", "torch.clamp(y, -0.3, 0.4)",
        "torch.clamp(y, max=0.3)", "torch.clamp_min(y, -0.1)", "torch.clamp_max(y, 0.1)", "torch.gelu(y)",
        "torch.gelu(y, approximate='tanh')", "torch.dropout(y, 0.5, False)",
        "torch.relu(torch.sigmoid(y) - 0 + torch.tanh(y))"}) {
    expect_computed(std::string("z = ") + function, kThrough);
  }
}

TEST_F(Lower, BoundsOfWhichTheLowerOneIsAboveAreLibTorchs) {
  expect_left("z = torch.clamp(y, 0.4, 0.3)");
}

TEST_F(Lower, Combinations) {
  for (const char* combination :
       {"y + torch.relu(x)", "y + y", "y * torch.sigmoid(x)", "torch.maximum(y, x)", "torch.minimum(x, y)",
        "torch.maximum(y, self.bound)", "torch.clamp(y, self.bound, self.bound + 1)", "y * self.bound", "y + self.bound",
        "self.bound * y", "torch.clamp_min(y, self.bound)", "torch.clamp_max(y, self.bound)",
        "y * torch.sigmoid(y.mean([2, 3], keepdim=True))", "torch.sigmoid(torch.adaptive_avg_pool2d(y, [1, 1])) * y"}) {
    expect_computed(std::string("z = ") + combination, kThrough);
  }
}

TEST_F(Lower, SumsOfLayersAndWhatIsReadLater) {
  for (const char* statements :
       {"z = torch.relu(y + x)", "z = torch.conv2d(y, self.same.weight, self.same.bias, padding=1) + y",
        "u = torch.relu(y)\nz = torch.conv2d(u, self.plain.weight) + u\nz = z + u",
        "z = torch.conv2d(y, self.plain.weight) + torch.conv2d(x, self.same.weight, self.same.bias, padding=1)",
        "u = torch.conv2d(y, self.plain.weight)\nz = torch.relu(u + y)\nz = z * u",
        "u = torch.conv2d(y, self.plain.weight)\nv = torch.conv2d(y, self.same.weight, self.same.bias, padding=1)\nz = "
        "torch.tanh(u + v) + u"}) {
    expect_computed(statements, kThrough);
  }
}

TEST_F(Lower, Convolutions) {
  for (const char* layer :
       {"torch.conv2d(y, self.plain.weight)", "torch.conv2d(y, self.same.weight, self.same.bias, stride=2, padding=[1, 0])",
        "torch.conv2d(y, self.same.weight, None, 1, 2, 2)",
        "torch.conv2d(y, self.depthwise.weight, self.depthwise.bias, 1, 1, 1, 8)",
        "torch.conv2d(torch.conv2d(torch.cat([y, x], 1), self.wide.weight, self.wide.bias, 1, 1, 1, 2), self.back.weight, "
        "self.back.bias)"}) {
    expect_computed(std::string("z = ") + layer, "torch.conv2d(z, self.plain.weight)");
  }
}

TEST_F(Lower, Pooling) {
  for (const char* pooling : {"torch.max_pool2d(y, 3, 2, 1)", "torch.max_pool2d(y, 2)", "torch.avg_pool2d(y, 3, 2, 1)",
                              "torch.avg_pool2d(y, 2)", "torch.avg_pool2d(y, 3, 1, 1, count_include_pad=False)",
                              "torch.adaptive_avg_pool2d(y, [2, 2])", "torch.adaptive_avg_pool2d(y, [1, 1])"}) {
    expect_computed(std::string("z = ") + pooling, "torch.conv2d(z, self.plain.weight)");
  }
  expect_computed("z = y.mean([2, 3])", "z");
  expect_computed("z = torch.flatten(y, 1)", "z");
  expect_computed("z = torch.flatten(torch.adaptive_avg_pool2d(y, [1, 1]), 1)", "z");
  expect_computed("z = torch.flatten(torch.flatten(y, 1), 1)", "z");
}

TEST_F(Lower, PoolingOfUnevenWindowsIsLibTorchs) {
  expect_left("z = torch.max_pool2d(y, 3, 2, 1, 2)");
  expect_left("z = torch.adaptive_avg_pool2d(y, [5, 5])");
  expect_left("z = y.mean([1, 2], keepdim=True)");
}

TEST_F(Lower, Concatenations) {
  const std::string both = "torch.conv2d(z, self.back.weight, self.back.bias)";
  for (const char* statements : {"z = torch.cat([y, x], 1)", "z = torch.cat([x, y], -3)", "z = torch.cat([y, y], 1)",
                                 "z = torch.cat([torch.relu(y), torch.tanh(y)], 1)",
                                 "u = torch.conv2d(y, self.small.weight, self.small.bias)\nz = torch.cat([u, y, u], 1)",
                                 "u = torch.relu(torch.cat([y, x], 1))\nz = u + torch.cat([y, x], 1)"}) {
    expect_computed(statements, both);
  }
  expect_computed("z = torch.cat([y, x], 2)", kThrough);
  expect_computed("z = torch.cat([y, x], 0)", kThrough);
  expect_computed("z = torch.cat([y], 1)", kThrough);
}

TEST_F(Lower, ConcatenationsThatGrow) {
  expect_computed(
      "a = torch.conv2d(y, self.plain.weight)\nu = torch.conv2d(torch.relu(torch.cat([y, a], 1)), self.back.weight, "
      "self.back.bias)\n"
      "v = torch.cat([y, a, u], 1)\nw = v[:, 8:]\nz = torch.conv2d(torch.cat([y, a], 1), self.back.weight) + u",
      "torch.cat([v, z], 1)");
  expect_computed(
      "a = torch.conv2d(y, self.plain.weight)\nb = torch.cat([y, a], 1)\nc = torch.relu(b)\n"
      "d = torch.conv2d(c, self.back.weight)\ne = torch.cat([y, a, d], 1)",
      "torch.relu(e) + torch.cat([b, d], 1)");
}

// Of two bounds, or two slopes, in one primitive oneDNN 2.6 takes the numbers of one for both.
TEST_F(Lower, FunctionsOfFunctions) {
  for (const char* function :
       {"torch.clamp(torch.clamp(u, -0.2, 1.0), 0.1, 0.4)", "torch.leaky_relu(torch.leaky_relu(u, 0.1), 0.5)",
        "torch.clamp(torch.hardsigmoid(u), 0.3, 0.6)", "torch.clamp(torch.tanh(torch.clamp(u, -0.2, 2.0)), -0.1, 0.9)"}) {
    for (const char* value : {"y", "y + x", "y * x", "torch.conv2d(y, self.depthwise.weight, self.depthwise.bias, 1, 1, 1, 8)",
                              "torch.max_pool2d(y, 3, 1, 1)"}) {
      expect_computed("u = " + std::string(value) + "\nz = " + function, kThrough);
    }
  }
}

// Blocks of 8 or 16 channels that are not full: in place oneDNN 2.6 leaves the last one as it was.
TEST_F(Lower, ChannelsThatFillNoBlock) {
  const std::string few =
      "u = torch.conv2d(y, self.few.weight, self.few.bias)\nv = torch.conv2d(x, self.few.weight, self.few.bias)\n";
  for (const char* statements : {"z = torch.relu(u * v)", "z = torch.relu(u + v)", "z = torch.maximum(u, v)",
                                 "z = torch.tanh(torch.tanh(torch.relu(u) * v) + v)",
                                 "z = u * torch.sigmoid(torch.conv2d(u, self.one.weight, self.one.bias))",
                                 "z = torch.relu(torch.max_pool2d(u, 3, 1, 1) * v) + u",
                                 "z = torch.cat([u, v, torch.silu(u)], 1)[:, 0:4]", "z = u * u.mean([2, 3], keepdim=True)"}) {
    expect_computed(few + statements, "torch.silu(torch.conv2d(z, self.fewer.weight, self.fewer.bias))");
  }
}

TEST_F(Lower, ConstantsOfAllSizes) {
  for (const char* combination :
       {"torch.relu(y + self.whole)", "self.whole + torch.conv2d(y, self.plain.weight)", "torch.tanh(y * self.whole)"}) {
    const Model tested = model("y = " + conv("back", conv("conv", "x", 1)) + "\nz = " + combination + "\nreturn " + kThrough);
    const OptimizeResult result = optimized(tested);
    expect_same(tested, result, {at::randn({1, 8, 12, 10}), at::randn({2, 8, 12, 10})});
    expect_networks(result.module, 2);
  }
}

// What is computed in place of the beginning of one concatenation would be overwritten where its parts are copied again.
TEST_F(Lower, ConcatenationsThatShareParts) {
  const std::string parts = "a = torch.relu(y)\nb = torch.tanh(torch.conv2d(y, self.plain.weight))\nc = torch.silu(x)\n";
  expect_computed(parts +
                      "r = torch.sigmoid(torch.cat([a, b], 1))\nw = torch.cat([a, b, c], 1)\nv = torch.cat([b, a], 1)\nz = "
                      "torch.cat([r, v, w], 1)",
                  "torch.conv2d(z, self.joined.weight, self.joined.bias)");
  expect_computed(parts +
                      "r = torch.clamp(torch.cat([a, a, x], 1), -0.3, 0.7)\nv = torch.cat([a, a, x, r], 1)\nw = torch.cat([x, "
                      "a], 1)\nz = torch.cat([v, w[:, :8]], 1)",
                  "torch.conv2d(z, self.joined.weight, self.joined.bias)");
}

TEST_F(Lower, ThreeDimensions) {
  const Model tested = model(
      "y = torch.conv3d(x, self.deep.weight, self.deep.bias, padding=[0, 1, 1])\nz = torch.relu(y + x)\n"
      "z = torch.max_pool3d(z, 2)\nreturn torch.conv3d(z, self.deep.weight, self.deep.bias).mean([2, 3, 4])");
  const OptimizeResult result = optimized(tested, at::randn({1, 8, 4, 12, 10}));
  EXPECT_EQ(result.in_networks.size(), 2U);
  expect_same(tested, result,
              {at::randn({1, 8, 4, 12, 10}), at::randn({2, 8, 5, 11, 9}),
               at::randn({1, 8, 4, 12, 10}).contiguous(at::MemoryFormat::ChannelsLast3d)});
  expect_networks(result.module, 3);
}

}  // namespace
}  // namespace bnfold::test
