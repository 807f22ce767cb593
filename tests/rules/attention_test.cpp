#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class AttentionRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // norm of x --> attention with 4 channels and 2 heads, of query, key and value, which y is of the norm and z of x
  static Model before(const std::string& operands, const std::string& read = "y.transpose(1, 2)", const std::string& end = "") {
    Model model;
    model.norm("norm", 4).layer("project", {12, 4}, 12).layer("out", {4, 4}, 4);
    return model.forward(fmt::format(
        "y = {}\ny = {}\nz = x.transpose(1, 2)\nreturn torch._native_multi_head_attention({}, 4, 2, self.project.weight, "
        "self.project.bias, self.out.weight, self.out.bias)[0]{}",
        batch_norm("norm", "x"), read, operands, end));
  }

  const at::Tensor x = at::randn({3, 4, 5}, at::kDouble);
};

TEST_F(AttentionRule, TakesANormIntoTheProjectionOfItsInput) {
  for (const int64_t batch : {1, 3}) {
    expect_folded(before("y, y, y").module, {at::randn({batch, 4, 5}, at::kDouble)}, "norm", "project");
  }
}

TEST_F(AttentionRule, DeclinesAQueryOfItsOwn) {
  expect_stopped(before("y, z, z").module, {x}, "norm", "forward", Reason::value_has_other_readers, "not one value");
  expect_stopped(before("z, y, y").module, {x}, "norm", "forward", Reason::value_has_other_readers, "not one value");
}

TEST_F(AttentionRule, DeclinesWhereTheNormIsAddedAgain) {
  expect_stopped(before("y, y, y", "y.transpose(1, 2)", " + y").module, {x}, "norm", "forward", Reason::scale_not_invertible);
}

TEST_F(AttentionRule, DeclinesChannelsThatAreNotItsInputs) {
  expect_stopped(before("y, y, y", "y").module, {at::randn({3, 4, 4}, at::kDouble)}, "norm", "forward",
                 Reason::affine_varies_elsewhere, "channels");
}

// The norm of what the attention returns at `place`, and of `end` behind that.
Model behind_attention(int place, const std::string& end, int64_t channels) {
  Model model;
  model.norm("norm", channels).layer("project", {12, 4}, 12).layer("out", {4, 4}, 4);
  return model.forward(fmt::format(
      "y = torch._native_multi_head_attention(x, x, x, 4, 2, self.project.weight, self.project.bias, self.out.weight, "
      "self.out.bias)[{}]{}\nreturn {}",
      place, end, batch_norm("norm", "y")));
}

TEST_F(AttentionRule, TakesANormBehindItIntoTheProjectionOfItsResult) {
  for (const int64_t batch : {1, 3}) {
    const at::Tensor y = at::randn({batch, 5, 4}, at::kDouble);
    expect_folded(behind_attention(0, ".transpose(1, 2)", 4).module, {y}, "norm", "out", with_rank(3));
  }
}

TEST_F(AttentionRule, DeclinesANormAlongTheSequence) {
  expect_kept(behind_attention(0, "", 5).module, {at::randn({3, 5, 4}, at::kDouble)}, "norm", Reason::affine_varies_elsewhere, "",
              with_rank(3));
}

TEST_F(AttentionRule, DeclinesANormOfTheWeightsOfTheValues) {
  expect_kept(behind_attention(1, ".permute([0, 2, 1])", 5).module, {at::randn({3, 5, 4}, at::kDouble)}, "norm",
              Reason::operator_not_affine, "softmax", with_rank(3));
}

}  // namespace
}  // namespace bnfold::test
