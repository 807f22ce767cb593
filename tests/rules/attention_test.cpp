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

}  // namespace
}  // namespace bnfold::test
