#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class RecurrentRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // norm of x --> `read` --> a recurrent layer with 3 inputs and 2 states, of 2 layers, and `cells` cells in all
  static Model before(const std::string& kind, int64_t gates, const std::string& read, int64_t cells, bool biases = true,
                      const std::string& weights = "[{}]", const std::string& layers = "2") {
    Model model;
    model.norm("norm", 3);
    std::string names;
    for (int64_t cell = 0; cell < cells; ++cell) {
      const bool first = cell < cells / 2;
      const std::string path = fmt::format("rnn.c{}", cell);
      model.parameter(path + ".w_ih", at::randn({2 * gates, first ? 3 : cells}, at::kDouble));
      model.parameter(path + ".w_hh", at::randn({2 * gates, 2}, at::kDouble));
      names += fmt::format("self.{0}.w_ih, self.{0}.w_hh, ", path);
      if (!biases) continue;
      model.parameter(path + ".b_ih", at::randn({2 * gates}, at::kDouble))
          .parameter(path + ".b_hh", at::randn({2 * gates}, at::kDouble));
      names += fmt::format("self.{0}.b_ih, self.{0}.b_hh, ", path);
    }
    names.resize(names.size() - 2);
    const std::string zeros = fmt::format("torch.zeros([{}, x.size(0), 2], dtype=7)", cells);
    return model.forward(fmt::format("y = {}\nw = {}\nreturn torch.{}({}, {}, w, {}, {}, 0.0, False, {}, True)[0]",
                                     batch_norm("norm", "x"), fmt::format(fmt::runtime(weights), names), kind, read,
                                     kind == "lstm" ? "[" + zeros + ", " + zeros + "]" : zeros, biases ? "True" : "False", layers,
                                     cells == 4 ? "True" : "False"));
  }

  const std::string read = "y.transpose(1, 2)";
  const at::Tensor x = at::randn({4, 3, 6}, at::kDouble);
};

TEST_F(RecurrentRule, TakesANormIntoTheWeightsThatReadTheInput) {
  for (const auto& [kind, gates] :
       {std::pair{"lstm", 4}, std::pair{"gru", 3}, std::pair{"rnn_tanh", 1}, std::pair{"rnn_relu", 1}}) {
    expect_folded(before(kind, gates, read, 2).module, {x}, "norm", "rnn.c0", with_rank(3));
  }
}

TEST_F(RecurrentRule, TakesItInBothDirections) {
  EXPECT_EQ(expect_unharmed(before("gru", 3, read, 4).module, {x}, with_rank(3)).report.folded.size(), 1U);
}

TEST_F(RecurrentRule, DeclinesChannelsThatAreNotItsInputs) {
  Model model = before("gru", 3, "y", 2);
  expect_stopped(model.module, {at::randn({4, 3, 3}, at::kDouble)}, "norm", "forward", Reason::affine_varies_elsewhere,
                 "channels", with_rank(3));
}

TEST_F(RecurrentRule, DeclinesAShiftWithoutABias) {
  expect_stopped(before("gru", 3, read, 2, false).module, {x}, "norm", "forward", Reason::shift_not_passable, "bias",
                 with_rank(3));
  Model model = before("gru", 3, read, 2, false);
  EXPECT_EQ(expect_unharmed(without_shift(model).module, {x}, with_rank(3)).report.folded.size(), 1U);
}

TEST_F(RecurrentRule, DeclinesAListOfWeightsThatIsBuiltElsewhere) {
  expect_stopped(before("gru", 3, read, 2, true, "[{}]\nif x.size(0) > 99:\n  w = w + w").module, {x}, "norm", "forward",
                 Reason::list_not_visible, "weights", with_rank(3));
}

TEST_F(RecurrentRule, DeclinesANumberOfLayersThatIsComputed) {
  expect_stopped(before("gru", 3, read, 2, true, "[{}]", "x.size(0) - 2").module, {x}, "norm", "forward",
                 Reason::operand_not_constant, "layers", with_rank(3));
}

TEST_F(RecurrentRule, DeclinesANormOfItsState) {
  Model model;
  model.norm("norm", 2).parameter("w_ih", at::randn({6, 3}, at::kDouble)).parameter("w_hh", at::randn({6, 2}, at::kDouble));
  model.forward(
      fmt::format("s = {}\nreturn torch.gru(torch.ones([5, 4, 3], dtype=7), s.permute([2, 0, 1]), [self.w_ih, self.w_hh], "
                  "False, 1, 0.0, False, False, False)[0]",
                  batch_norm("norm", "x")));
  expect_stopped(model.module, {at::randn({4, 2, 1}, at::kDouble)}, "norm", "forward", Reason::weight_not_static, "state",
                 with_rank(3));
}

}  // namespace
}  // namespace bnfold::test
