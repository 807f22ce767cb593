// Concatenations that grow, and what works in place around them.
#include "fuse/concat.h"

#include <fmt/format.h>

#include "support/fused.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class Concatenations : public Fused {
 protected:
  // conv0 of x and conv1, conv2, conv3 [2, ..., 3, 3], each of what is concatenated before it, and `last` of all.
  static Model dense(const std::string& statements) {
    Model model;
    model.layer("conv0", {3, 4, 1, 1}, 3).layer("conv1", {2, 3, 3, 3}, 2).layer("conv2", {2, 5, 3, 3}, 2);
    model.layer("conv3", {2, 7, 3, 3}, 2).layer("last", {4, 9, 1, 1}, 4);
    model.forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  static std::string c(int number, const std::string& value) {
    return conv(fmt::format("conv{}", number), value, number == 0 ? 0 : 1);
  }

  static std::string grown(const std::string& read = "torch.relu(u)") {
    return fmt::format(
        "a = {}\nu = torch.cat([a], 1)\nb = {}\nu = torch.cat([a, b], 1)\nd = {}\nu = torch.cat([a, b, d], 1)\ne = {}\n"
        "u = torch.cat([a, b, d, e], 1)\n",
        c(0, "x"), c(1, read), c(2, read), c(3, read));
  }

  // The same with a list to which each convolution appends, `begin` behind the first one and `end` behind the last one.
  static Model listed(const std::string& end = "", const std::string& begin = "") {
    const std::string read = "torch.relu(torch.cat(l, 1))";
    return dense(
        fmt::format("l = [{}]\n{}l.append({})\nl.append({})\nl.append({})\nreturn torch.conv2d(torch.cat(l, 1), "
                    "self.last.weight, self.last.bias){}",
                    c(0, "x"), begin, c(1, read), c(2, read), c(3, read), end));
  }

  // A list of what conv0 makes, and of what conv1 makes of the item at that place.
  static Model read_at(const std::string& place) {
    return dense(fmt::format("l = [{}]\nl.append({})\nreturn torch.conv2d(torch.cat(l, 1), self.conv2.weight)", c(0, "x"),
                             c(1, "l[" + place + "]")));
  }

  OptimizeResult optimized(const Model& model) const {
    concatenations(model);
    return optimize_for_inference(model.module, {x});
  }

  // How many concatenations are left; compared with the original on two inputs, three runs each.
  int64_t concatenations(const Model& model) const {
    jit::Module original = model.module;
    jit::Module optimized = optimize_for_inference(model.module, {x}).module;
    const at::NoGradGuard no_grad;
    for (const at::Tensor& input : {x, at::randn({1, 4, 5, 9})}) {
      const at::Tensor before = input.clone();
      for (int run = 0; run < 3; ++run) {
        const at::Tensor one = original.forward({input.clone()}).toTensor();
        const at::Tensor other = optimized.forward({input}).toTensor();
        expect_near(one, other);
      }
      EXPECT_TRUE(input.equal(before));
    }
    return count_nodes(optimized, "aten::cat");
  }

  const at::Tensor x = at::randn({2, 4, 7, 6});
};

TEST_F(Concatenations, ShareMemoryWhereTheyGrow) {
  EXPECT_EQ(concatenations(dense(grown() + "return torch.conv2d(u, self.last.weight, self.last.bias)")), 0);
}

TEST_F(Concatenations, ShareMemoryWhereAListGrows) {
  EXPECT_EQ(concatenations(listed()), 0);
}

TEST_F(Concatenations, LetItemsOfAListBeRead) {
  for (const char* place : {"-1", "0"}) {
    const OptimizeResult result = optimized(read_at(place));
    expect_fused(result, {"conv0: conv2d", "conv1: conv2d", "conv2: conv2d"});
  }
}

TEST_F(Concatenations, LetItemsBeStepsThatAreReadAtAComputedPlace) {
  EXPECT_TRUE(optimized(read_at("x.size(0) - 2")).unfused.empty());
}

TEST_F(Concatenations, ShareMemoryWhereTheirReadersWouldWriteInPlace) {
  EXPECT_EQ(concatenations(
                dense(grown("torch.relu_(u * 1.0)") + "return torch.relu_(torch.conv2d(u, self.last.weight, self.last.bias))")),
            0);
}

TEST_F(Concatenations, KeepTheirOwnWhereOneIsReturned) {
  EXPECT_EQ(concatenations(dense(grown() + "return u")), 1);
}

TEST_F(Concatenations, KeepTheirOwnWhereAViewIsMadeOfOne) {
  EXPECT_EQ(concatenations(dense(grown() + "v = u[:, 1:3]\nreturn torch.conv2d(u, self.last.weight, self.last.bias) + v.mean()")),
            1);
}

TEST_F(Concatenations, KeepTheirOwnAlongAnotherDimension) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3);
  model.forward(
      fmt::format("a = {}\nb = torch.relu(torch.cat([a], 2))\nd = torch.relu(torch.cat([a, b], 2))\n"
                  "return torch.sigmoid(torch.cat([a, b, d], 2))",
                  c(0, "x")));
  model.module.to(at::kFloat);
  EXPECT_EQ(concatenations(model), 3);
}

TEST_F(Concatenations, KeepTheirOwnWhereTheyAreFew) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3).layer("conv1", {2, 3, 3, 3}, 2);
  model.forward(fmt::format("a = {}\nb = {}\nreturn torch.sigmoid(torch.cat([a, b], 1))", c(0, "x"),
                            c(1, "torch.relu(torch.cat([a], 1))")));
  model.module.to(at::kFloat);
  EXPECT_EQ(concatenations(model), 2);
}

TEST_F(Concatenations, ShareMemoryWithoutExampleInputs) {
  const Model model = dense(grown() + "return torch.conv2d(u, self.last.weight, self.last.bias)");
  EXPECT_EQ(count_nodes(optimize_for_inference(model.module).module, "aten::cat"), 0);
}

TEST_F(Concatenations, KeepTheirOwnWhereTheChannelsAreThoseOfTheInput) {
  Model pools;
  pools.forward(
      "a = torch.max_pool2d(x, [3, 3], [1, 1], [1, 1])\nb = torch.max_pool2d(a, [3, 3], [1, 1], [1, 1])\n"
      "return torch.abs(torch.cat([x, a], 1)).sum(1) + torch.abs(torch.cat([x, a, b], 1)).sum(1) + "
      "torch.abs(torch.cat([x, a, b, torch.tanh(b)], 1)).sum(1)");
  EXPECT_EQ(concatenations(pools), 3);
  const jit::Module optimized = optimize_for_inference(pools.module, {x}).module;
  const auto [one, other] = outputs_of(pools.module, optimized, x.slice(1, 0, 1));
  expect_near(one, other);
}

TEST_F(Concatenations, KeepTheirOwnWhereAPartIsWritten) {
  const std::string all = grown();
  const size_t last = all.rfind("u = torch.cat");
  EXPECT_GT(concatenations(dense(all.substr(0, last) + "b.mul_(0.5)\n" + all.substr(last) +
                                 "return torch.conv2d(u, self.last.weight, self.last.bias)")),
            0);
}

// Doubles have no steps, which would make channels_last memory: what comes out is contiguous, as in the original.
TEST_F(Concatenations, KeepTheirOwnWhereNoStepMakesChannelsLast) {
  Model model = dense(grown() + "return torch.conv2d(u, self.last.weight, self.last.bias)");
  model.module.to(at::kDouble);
  jit::Module optimized = optimize_for_inference(model.module, {x.to(at::kDouble)}).module;
  EXPECT_EQ(count_nodes(optimized, "aten::cat"), 4);
  EXPECT_TRUE(optimized.forward({x.to(at::kDouble)}).toTensor().is_contiguous());
}

TEST_F(Concatenations, KeepAListThatAnotherOneHoldsAsItGrows) {
  EXPECT_EQ(concatenations(listed(" + float(len(l))")), 0);
  EXPECT_EQ(concatenations(listed(" + float(len(held[x.size(0) - 1]))", "held = [l, l]\n")), 4);
}

TEST_F(Concatenations, KeepAListThatGrowsInABranch) {
  for (const char* condition : {"bool(x.sum() > -1e9)", "bool(x.sum() > 1e9)"}) {
    Model model;
    model.layer("conv0", {3, 4, 1, 1}, 3);
    model.forward(fmt::format("a = {}\nl = [a]\nif {}:\n  l.append(torch.tanh(a))\nreturn torch.sigmoid(torch.cat(l, 1))",
                              c(0, "x"), condition));
    model.module.to(at::kFloat);
    EXPECT_EQ(concatenations(model), 1);
  }
}

// ---- in place

TEST_F(Concatenations, LeaveBoundsInPlaceWhereNobodyElseReads) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3);
  model.forward("y = " + c(0, "x") + "\nreturn torch.elu(torch.max_pool2d(y, [2, 2]) * torch.sigmoid(y.mean([2, 3], True)))");
  model.module.to(at::kFloat);
  concatenations(model);
  const jit::Module optimized = optimize_for_inference(model.module, {x}).module;
  EXPECT_EQ(count_nodes(optimized, "aten::mul_"), 1);
  EXPECT_EQ(count_nodes(optimized, "aten::elu_"), 1);
}

TEST_F(Concatenations, OverwriteWhatAnOperatorSurelyMade) {
  for (const auto& [made, overwritten] : std::vector<std::pair<std::string, int>>{{"x * 1.5", 1},
                                                                                  {"x", 0},
                                                                                  {"torch.einsum(\"nchw->nchw\", [x])", 0},
                                                                                  {"torch.dropout(x, 0.5, False)", 0},
                                                                                  {"[x, x * 2][0]", 0},
                                                                                  {"torch.conj_physical(x)", 0},
                                                                                  {"x.permute([0, 1, 3, 2])", 0},
                                                                                  {"torch._unsafe_view(x, [-1])", 0}}) {
    Model model;
    model.layer("conv0", {3, 4, 1, 1}, 3)
        .forward("z = torch.conv2d(x, self.conv0.weight)\nreturn torch.tanh(" + made + ").sum() + z");
    model.module.to(at::kFloat);
    concatenations(model);
    EXPECT_EQ(count_nodes(optimize_for_inference(model.module, {x}).module, "aten::tanh_"), overwritten) << made;
  }
}

TEST_F(Concatenations, OverwriteNoIntegersAndNothingOfAnotherDtype) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3);
  model.forward("y = " + c(0, "x") + "\nreturn torch.sigmoid(y.argmax(1)) + torch.sigmoid(y * 2).sum(1)");
  model.module.to(at::kFloat);
  concatenations(model);
  EXPECT_EQ(count_nodes(optimize_for_inference(model.module, {x}).module, "aten::sigmoid_"), 1);
}

TEST_F(Concatenations, OverwriteNothingThatIsBroadcastForOtherBatches) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3);
  model.forward("y = " + c(0, "x") + "\nreturn torch.tanh(y.mean(0, True)) * torch.tanh(y)");
  model.module.to(at::kFloat);
  const jit::Module optimized = optimize_for_inference(model.module, {x.slice(0, 0, 1)}).module;
  EXPECT_EQ(count_nodes(optimized, "aten::mul_"), 0);
  const auto [one, other] = outputs_of(model.module, optimized, x);
  expect_near(one, other);
}

TEST_F(Concatenations, NeverOverwriteWhatIsBroadcastOrReadAgain) {
  Model model;
  model.layer("conv0", {3, 4, 1, 1}, 3);
  model.forward("y = torch.sigmoid(" + c(0, "x") +
                ")\ngate = torch.tanh(y.mean([2, 3], True))\nz = torch.relu(y)\nreturn gate * y + z");
  model.module.to(at::kFloat);
  concatenations(model);
  EXPECT_EQ(count_nodes(optimize_for_inference(model.module, {x}).module, "aten::mul_"), 0);
}

}  // namespace
}  // namespace bnfold::test
