#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class RecurrentCellRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // norm of x --> `call` of a cell with 3 inputs and 2 states, which reads y and makes states from `zeros`
  static Model before(const std::string& call, int64_t gates, bool biases = true) {
    Model model;
    model.norm("norm", 3)
        .parameter("cell.w_ih", at::randn({2 * gates, 3}, at::kDouble))
        .parameter("cell.w_hh", at::randn({2 * gates, 2}, at::kDouble));
    if (biases) {
      model.parameter("cell.b_ih", at::randn({2 * gates}, at::kDouble))
          .parameter("cell.b_hh", at::randn({2 * gates}, at::kDouble));
    }
    return model.forward(
        fmt::format("y = {}\nzeros = torch.zeros([x.size(0), 2], dtype=7)\nreturn torch.{}, self.cell.w_ih, "
                    "self.cell.w_hh{})",
                    batch_norm("norm", "x"), call, biases ? ", self.cell.b_ih, self.cell.b_hh" : ""));
  }

  const at::Tensor x = at::randn({4, 3}, at::kDouble);
};

TEST_F(RecurrentCellRule, TakesANormIntoTheWeightsThatReadTheInput) {
  for (const auto& [call, gates] : {std::pair{"lstm_cell(y, [zeros, zeros]", 4}, std::pair{"gru_cell(y, zeros", 3},
                                    std::pair{"rnn_tanh_cell(y, zeros", 1}, std::pair{"rnn_relu_cell(y, zeros", 1}}) {
    expect_folded(before(call, gates).module, {x}, "norm", "cell", with_rank(2));
  }
}

TEST_F(RecurrentCellRule, DeclinesANormOfItsState) {
  Model model;
  model.norm("norm", 3).parameter("w_ih", at::randn({9, 3}, at::kDouble)).parameter("w_hh", at::randn({9, 3}, at::kDouble));
  model.forward(fmt::format("y = {}\nreturn torch.gru_cell(x, y, self.w_ih, self.w_hh)", batch_norm("norm", "x")));
  expect_stopped(model.module, {x}, "norm", "forward", Reason::weight_not_static, "state", with_rank(2));
}

TEST_F(RecurrentCellRule, DeclinesAShiftWithoutABias) {
  expect_stopped(before("gru_cell(y, zeros", 3, false).module, {x}, "norm", "forward", Reason::shift_not_passable, "bias",
                 with_rank(2));
  Model model = before("gru_cell(y, zeros", 3, false);
  EXPECT_EQ(expect_unharmed(without_shift(model).module, {x}, with_rank(2)).report.folded.size(), 1U);
}

}  // namespace
}  // namespace bnfold::test
