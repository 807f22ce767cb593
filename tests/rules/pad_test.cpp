#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

// The same affine for every channel.
Model& alike(Model& model) {
  tensor_of(model, "weight").fill_(-0.7);
  tensor_of(model, "bias").fill_(0.3);
  tensor_of(model, "running_mean").fill_(0.2);
  tensor_of(model, "running_var").fill_(1.5);
  return model;
}

class PadRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& padded) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), padded, batch_norm("norm", "y")));
  }

  static Model before(const std::string& padded) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), padded, conv("conv", "y")));
  }

  const std::vector<std::string> copies = {
      "torch.reflection_pad2d(y, [1, 2, 1, 0])",      "torch.replication_pad2d(y, [1, 2, 1, 0])",
      "torch.pad(y, [1, 1, 1, 1], 'reflect', None)",  "torch.pad(y, [1, 1, 1, 1], 'replicate', None)",
      "torch.pad(y, [1, 1, 2, 1], 'circular', None)",
  };
  const std::vector<std::string> constants = {
      "torch.constant_pad_nd(y, [1, 1, 1, 1], 0.5)",
      "torch.constant_pad_nd(y, [2, 0], 1)",
      "torch.pad(y, [1, 1, 1, 1], 'constant', None)",
      "torch.pad(y, [1, 1, -1, 1], 'constant', -0.5)",
  };
  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(PadRule, LetsTheAffinePassCopiesBackward) {
  for (const std::string& padded : copies) expect_folded(behind(padded).module, {x}, "norm", "conv");
}

TEST_F(PadRule, LetsTheAffinePassCopiesForward) {
  for (const std::string& padded : copies) expect_folded(before(padded).module, {x}, "norm", "conv");
}

TEST_F(PadRule, ChangesAConstantThatIsTheSameForAllChannels) {
  for (const std::string& padded : constants) {
    Model back = behind(padded);
    expect_folded(alike(back).module, {x}, "norm", "conv");
    Model on = before(padded);
    expect_folded(alike(on).module, {x}, "norm", "conv");
  }
}

TEST_F(PadRule, DeclinesAConstantForEachChannel) {
  for (const std::string& padded : constants) {
    expect_kept(behind(padded).module, {x}, "norm", Reason::shift_at_padding, "different constants");
    expect_stopped(before(padded).module, {x}, "norm", "forward", Reason::shift_at_padding, "different constants");
  }
}

TEST_F(PadRule, LetsAScalePassZeros) {
  const std::string padded = "torch.constant_pad_nd(y, [1, 1, 1, 1], 0)";
  Model back = behind(padded);
  expect_folded(without_shift(back).module, {x}, "norm", "conv");
  Model on = before(padded);
  expect_folded(without_shift(on).module, {x}, "norm", "conv");
}

TEST_F(PadRule, DeclinesAConstantBehindAZeroScale) {
  Model model = before("torch.constant_pad_nd(y, [1, 1, 1, 1], 0.5)");
  tensor_of(alike(model), "weight").zero_();
  expect_stopped(model.module, {x}, "norm", "forward", Reason::shift_at_padding, "different constants");
}

TEST_F(PadRule, LetsTheAffinePassAddedChannelsForward) {
  for (const char* padded :
       {"torch.pad(y, [0, 0, 0, 0, 0, 2], 'constant', None)", "torch.pad(y, [0, 0, 0, 0, 1, 1], 'constant', 0.5)",
        "torch.constant_pad_nd(y, [0, 0, 0, 0, 2, 0], -1)"}) {
    Model model;
    model.layer("conv", {4, 5, 3, 3}, 4).norm("norm", 3);
    model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), padded, conv("conv", "y")));
    expect_folded(model.module, {x}, "norm", "conv");
  }
}

TEST_F(PadRule, DeclinesChannelsThatAreTakenAwayOrCopied) {
  for (const char* padded :
       {"torch.pad(y, [0, 0, 0, 0, -1, 1], 'constant', None)", "torch.pad(y, [0, 0, 0, 0, 1, -1], 'constant', None)"}) {
    expect_stopped(before(padded).module, {x}, "norm", "forward", Reason::affine_varies_elsewhere, "padded dimension");
  }
  Model model;
  model.layer("conv", {4, 5, 3}, 4).norm("norm", 3);
  model.forward(
      fmt::format("y = {}\ny = torch.pad(y.transpose(1, 2), [1, 1], 'replicate', "
                  "None).transpose(1, 2)\nreturn torch.conv1d(y, self.conv.weight, self.conv.bias)",
                  batch_norm("norm", "x")));
  expect_stopped(model.module, {at::randn({2, 3, 6}, at::kDouble)}, "norm", "forward", Reason::affine_varies_elsewhere,
                 "padded dimension");
}

TEST_F(PadRule, DeclinesPaddedChannelsBackward) {
  Model model;
  model.layer("conv", {2, 3, 3, 3}, 2).norm("norm", 4);
  model.forward(fmt::format("y = {}\ny = torch.pad(y, [0, 0, 0, 0, 1, 1], 'constant', None)\nreturn {}", conv("conv", "x"),
                            batch_norm("norm", "y")));
  expect_kept(model.module, {x}, "norm", Reason::affine_varies_elsewhere, "padded dimension");
}

TEST_F(PadRule, DeclinesPaddedChannels) {
  expect_stopped(before("torch.pad(y, [1, 1, 1, 1, 1, 0], 'constant', None)[:, 1:]").module, {x}, "norm", "forward",
                 Reason::affine_varies_elsewhere, "padded dimension");
}

TEST_F(PadRule, DeclinesAnAmountThatIsComputed) {
  expect_stopped(before("torch.constant_pad_nd(y, [1, x.size(0)], 0)").module, {x}, "norm", "forward",
                 Reason::operand_not_constant, "amount of padding");
  expect_kept(behind("torch.constant_pad_nd(y, [1, x.size(0)], 0)").module, {x}, "norm", Reason::operand_not_constant,
              "amount of padding");
}

TEST_F(PadRule, DeclinesAConstantThatIsComputed) {
  expect_stopped(before("torch.constant_pad_nd(y, [1, 1], float(x.mean()))").module, {x}, "norm", "forward",
                 Reason::operand_not_constant, "what it pads with");
}

TEST_F(PadRule, DoesNoHarmWhereTheConstantWouldLeaveTheRange) {
  // In float, which every LibTorch normalizes on the CPU, as it does not half.
  Model model = before("torch.constant_pad_nd(y, [1, 1, 1, 1], 3e38)");
  alike(model);
  model.module.to(at::kFloat);
  FoldResult result = fold(model.module);
  EXPECT_NO_THROW(result.module.forward({x.to(at::kFloat)}));
}

}  // namespace
}  // namespace bnfold::test
