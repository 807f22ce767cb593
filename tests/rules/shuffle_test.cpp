#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

// Each group of four channels has one scale and one shift.
Model& in_groups_of_four(Model& model) {
  for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
    const at::Tensor tensor = tensor_of(model, name);
    tensor.copy_(tensor.view({-1, 4}).select(1, 0).repeat_interleave(4));
  }
  return model;
}

class ShuffleRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model behind(const std::string& shuffled, int64_t channels) {
    Model model;
    model.layer("conv", {8, 3, 3, 3}, 8).norm("norm", channels);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", conv("conv", "x"), shuffled, batch_norm("norm", "y")));
  }

  static Model before(const std::string& shuffled, int64_t inputs) {
    Model model;
    model.layer("conv", {4, inputs, 1, 1}, 4).norm("norm", 8);
    return model.forward(fmt::format("y = {}\ny = {}\nreturn {}", batch_norm("norm", "x"), shuffled, conv("conv", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
  const at::Tensor eight = at::randn({2, 8, 4, 4}, at::kDouble);
};

TEST_F(ShuffleRule, MovesTheChannelsOfTheAffine) {
  for (const int64_t groups : {1, 2, 4}) {
    const std::string shuffled = fmt::format("torch.channel_shuffle(y, {})", groups);
    expect_folded(behind(shuffled, 8).module, {x}, "norm", "conv");
    expect_folded(before(shuffled, 8).module, {eight}, "norm", "conv");
  }
}

TEST_F(ShuffleRule, DeclinesGroupsThatAreComputed) {
  expect_kept(behind("torch.channel_shuffle(y, x.size(0))", 8).module, {x}, "norm", Reason::operand_not_constant, "factor");
}

TEST_F(ShuffleRule, DeclinesChannelsElsewhere) {
  const Model model = behind("torch.channel_shuffle(y, 2).permute(0, 2, 1, 3)", 4);
  expect_kept(model.module, {x}, "norm", Reason::affine_varies_elsewhere, "not those that it moves");
}

TEST_F(ShuffleRule, RepeatsTheAffineBehindAPixelShuffle) {
  expect_folded(behind("torch.pixel_shuffle(y, 2)", 2).module, {x}, "norm", "conv");
}

TEST_F(ShuffleRule, RepeatsTheAffineBeforeAPixelUnshuffle) {
  expect_folded(before("torch.pixel_unshuffle(y, 2)", 32).module, {eight}, "norm", "conv");
}

TEST_F(ShuffleRule, JoinsChannelsThatAgree) {
  Model on = before("torch.pixel_shuffle(y, 2)", 2);
  expect_folded(in_groups_of_four(on).module, {eight}, "norm", "conv");
  Model back = behind("torch.pixel_unshuffle(y, 2)", 32);
  expect_folded(in_groups_of_four(back).module, {x}, "norm", "conv");
}

TEST_F(ShuffleRule, DeclinesToJoinChannelsThatDiffer) {
  expect_stopped(before("torch.pixel_shuffle(y, 2)", 2).module, {eight}, "norm", "forward", Reason::affine_varies_elsewhere,
                 "joins channels");
  expect_kept(behind("torch.pixel_unshuffle(y, 2)", 32).module, {x}, "norm", Reason::affine_varies_elsewhere, "joins channels");
}

}  // namespace
}  // namespace bnfold::test
