// Which layers go into a network.
#include "onednn/region.h"

#include "onednn/onednn.h"

namespace bnfold::test {
namespace {

class OneDnnRegion : public OneDnn {
 protected:
  static void expect_in_networks(const std::string& statements, const std::vector<std::string>& layers,
                                 int64_t networks_made = 1) {
    SCOPED_TRACE(statements);
    const Model tested = model(statements);
    const OptimizeResult result = optimized(tested);
    EXPECT_EQ(result.in_networks, layers);
    expect_same(tested, result, {at::randn({1, 8, 12, 10}), at::randn({3, 8, 9, 11})});
    expect_networks(result.module, layers.empty() ? 0 : 2 * networks_made);
  }

  static std::string c(const std::string& value) { return conv("conv", value, 1); }
  static std::string b(const std::string& value) { return conv("back", value); }
  static std::string s(const std::string& value) { return conv("same", value, 1); }
};

TEST_F(OneDnnRegion, TakesLayersThatFollowEachOther) {
  expect_in_networks("return " + b("torch.relu(" + c("x") + ")"), {"conv", "back"});
  expect_in_networks("return torch.relu(" + c("x") + ")", {});  // one layer
}

TEST_F(OneDnnRegion, TakesLayersBesideEachOther) {
  expect_in_networks("y = " + s("x") + "\nz = torch.conv2d(x, self.plain.weight)\nreturn y * z", {"same", "plain"});
}

TEST_F(OneDnnRegion, HasSeveralResults) {
  expect_in_networks("y = " + c("x") + "\nz = " + b("y") + "\nreturn torch.cumsum(y, 1).sum() + z", {"conv", "back"});
}

TEST_F(OneDnnRegion, MovesWhatReadsAResultBehindIt) {
  expect_in_networks(
      "y = " + s("x") +
          "\nu = torch.cumsum(y, 1)\nv = torch.cat([y, u], 1)\nz = torch.conv2d(y, self.plain.weight)\nreturn u + z + v[:, :8]",
      {"same", "plain"});
}

TEST_F(OneDnnRegion, IsAnotherOneBehindWhatItCantCompute) {
  const std::string first = "y = " + b(c("x")) + "\n";
  const std::string second = "\nreturn torch.conv2d(" + s("y") + ", self.plain.weight)";
  expect_in_networks(first + "y = torch.cumsum(y, 1)" + second, {"conv", "back", "same", "plain"}, 2);
  expect_in_networks(first + "y = torch.relu(y)" + second, {"conv", "back", "same", "plain"}, 1);
}

TEST_F(OneDnnRegion, EndsBeforeWhatRaises) {
  expect_in_networks("y = " + c("x") + "\nassert x.size(0) < 5\nreturn " + b("y"), {});
}

TEST_F(OneDnnRegion, LeavesWhatIsWritten) {
  expect_in_networks("y = " + b(c("x")) + "\ny[:, 0] = 1\nreturn y", {});
  expect_in_networks("y = " + b(c("x")) + "\ny = y.clone()\ny[:, 0] = 1\nreturn y", {"conv", "back"});
  expect_in_networks("y = " + b(c("x")) + "\nx.add_(1)\nreturn y + x", {});
}

TEST_F(OneDnnRegion, TakesWhatWasMadeNewMemory) {
  expect_in_networks("u = torch.ones_like(x)\ny = " + s("x") +
                         "\nv = torch.cat([y, u], 1)\nu.add_(1)\nz = torch.conv2d(y, self.plain.weight)\nreturn z + v[:, 8:] + u",
                     {"same", "plain"});
}

TEST_F(OneDnnRegion, LeavesOtherDtypes) {
  Model tested = model("return " + b(c("x")));
  tested.module.to(at::kDouble);
  const OptimizeResult result = optimized(tested, at::randn({1, 8, 5, 5}, at::kDouble));
  EXPECT_TRUE(result.in_networks.empty());
}

TEST_F(OneDnnRegion, LeavesPaddingThatIsAWord) {
  expect_in_networks("return " + b("torch.conv2d(x, self.conv.weight, self.conv.bias, padding='same')"), {});
}

// A kernel computes blocks of 8 channels of one group, or one channel of each.
TEST_F(OneDnnRegion, LeavesGroupsWithoutAKernel) {
  const auto with = [](const std::string& layer) { return "y = " + b(c("x")) + "\nreturn torch.conv2d(" + layer + ")"; };
  expect_in_networks(with("torch.cat([y, x], 1), self.wide.weight, self.wide.bias, 1, 1, 1, 2"), {"conv", "back", "wide"});
  expect_in_networks(with("y, self.grouped.weight, self.grouped.bias, 1, 1, 1, 2"), {"conv", "back"});
  expect_in_networks(with("y, self.depthwise.weight, self.depthwise.bias, 1, 1, 1, 8"), {"conv", "back", "depthwise"});
  expect_in_networks(with("y, self.doubled.weight, self.doubled.bias, 1, 1, 1, 8"), {"conv", "back"});
}

TEST_F(OneDnnRegion, LeavesWhatHasNoPrimitive) {
  const auto with = [](const std::string& statement) { return "y = " + b(c("x")) + "\ny = " + statement + "\nreturn y"; };
  for (const char* statement :
       {"torch.add(y, x, alpha=2)", "torch.max_pool2d(y, 3, 2, 1, 1, True)", "torch.avg_pool2d(y, 2, divisor_override=3)",
        "torch.cat([y, self.plain.weight[:1, :, :1, :1].expand_as(y)], 1)",
        "torch.conv_transpose2d(y, self.turned.weight, self.turned.bias)"}) {
    expect_in_networks(with(statement), {"conv", "back"});
  }
}

TEST_F(OneDnnRegion, LeavesAConcatenationWithAConstant) {
  const Model tested = model("y = " + b(c("x")) + "\nreturn torch.cat([y, self.whole], 1)");
  const OptimizeResult result = optimized(tested);
  EXPECT_EQ(result.in_networks, std::vector<std::string>({"conv", "back"}));
  expect_same(tested, result, {at::randn({1, 8, 12, 10})});
  expect_networks(result.module, 1);
}

TEST_F(OneDnnRegion, LeavesComputedWeights) {
  expect_in_networks("return " + b(c("x")), {"conv", "back"});
  expect_in_networks("return torch.conv2d(" + c("x") + ", self.back.weight * x.mean(), self.back.bias)", {});
}

}  // namespace
}  // namespace bnfold::test
