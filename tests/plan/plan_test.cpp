// What the planner asks of the values between a layer and its norm.
#include "plan/plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

class Planner : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string conv(const std::string& value = "x") {
    return fmt::format("torch.conv2d({}, self.conv.weight, None, [1, 1], [0, 0], [1, 1], 1)", value);
  }

  static Model with(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}).norm("norm", 4);
    return model.forward(statements);
  }

  static std::string norm(const std::string& value = "y") { return batch_norm("norm", value); }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(Planner, FoldsWhereTheNormIsTheOnlyReader) {
  expect_folded(with("y = " + conv() + "\nreturn " + norm()).module, {x}, "norm", "conv");
}

TEST_F(Planner, ReadsOfRankSizeAndDtypeDoNotCount) {
  const Model model =
      with("y = " + conv() + "\nassert y.dim() == 4\nz = " + norm() + "\nreturn z * y.size(1) * float(y.is_floating_point())");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesWhereSomethingElseReadsTheValue) {
  expect_kept(with("y = " + conv() + "\nreturn " + norm() + " + y").module, {x}, "norm", Reason::value_has_other_readers,
              "aten::add");
}

TEST_F(Planner, DeclinesWhereTheValueIsReturned) {
  expect_kept(with("y = " + conv() + "\nreturn " + norm() + ", y").module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(Planner, DeclinesWhereTheValueIsWrittenInPlace) {
  const Model model = with("y = " + conv() + "\ny.mul_(x.std())\nreturn " + norm());
  expect_kept(model.module, {x}, "norm", Reason::value_changed_in_place, "aten::mul_");
}

TEST_F(Planner, FoldsWhereTheNormsOutputIsWrittenInPlace) {
  expect_folded(with("y = " + conv() + "\nz = " + norm() + "\nz.relu_()\nreturn z").module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesANormOfAConvolutionWithoutABatch) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).norm("norm", 4).layer("behind", {5, 4, 1}, 5);
  model.forward("z = " + batch_norm("norm", conv()) +
                "\nassert z.dim() == 3\nreturn torch.conv1d(z, self.behind.weight, self.behind.bias, [1], [0], [1], 1)");
  expect_stopped(model.module, {at::randn({3, 6, 6}, at::kDouble)}, "norm", "norm", Reason::input_not_batched, "no batch",
                 with_rank(3));
}

TEST_F(Planner, DeclinesANormOfTheInput) {
  expect_kept(with("return " + conv(batch_norm("norm", "x")).replace(0, 0, "")).module, {}, "norm",
              Reason::value_from_graph_input);
}

TEST_F(Planner, FoldsANormInABranchOfALayerOutside) {
  const Model model = with("y = " + conv() + "\nif bool(x.sum() > 0):\n  z = " + norm() + "\nelse:\n  z = x\nreturn z");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesANormInABranchOfALayerThatTheOtherBranchReads) {
  const Model model = with("y = " + conv() + "\nif bool(x.sum() > 0):\n  z = " + norm() + "\nelse:\n  z = y\nreturn z");
  expect_kept(model.module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(Planner, FoldsInsideABranch) {
  const Model model = with("if bool(x.sum() > 0):\n  y = " + conv() + "\n  z = " + norm() + "\nelse:\n  z = x\nreturn z");
  expect_folded(model.module, {x.abs()}, "norm", "conv");
}

TEST_F(Planner, FoldsInsideALoop) {
  const Model model = with("z = x\nfor i in range(x.size(0)):\n  y = " + conv() + "\n  z = " + norm() + ".relu_()\nreturn z");
  expect_folded(model.module, {x}, "norm", "conv");
}

TEST_F(Planner, DeclinesALoopThatWouldWriteIntoTheLayersOutput) {
  const Model model =
      with("y = " + conv() + "\nz = x.sum()\nfor i in range(x.size(0)):\n  z = z + " + norm() + ".add_(1.0).sum()\nreturn z");
  expect_kept(model.module, {x}, "norm", Reason::value_from_other_block);
}

TEST_F(Planner, DeclinesAnOperatorWithoutARule) {
  expect_kept(with("y = torch.cumsum(" + conv() + ", 1)\nreturn " + norm()).module, {x}, "norm", Reason::no_rule_for_operator,
              "aten::cumsum");
}

TEST_F(Planner, FoldsTwoNormsInARow) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}).norm("norm1", 4).norm("norm2", 4);
  model.forward("y = " + conv() + "\ny = " + batch_norm("norm1", "y") + "\nreturn " + batch_norm("norm2", "y"));
  const FoldResult result = expect_folded(model.module, {x}, "norm2", "conv");
  EXPECT_EQ(result.report.folded.size(), 2U);
}

// What returns its input where there is nothing to do, though its schema does not say so.
class HandsOn : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // u --> norm --> behind; `operation` makes of u what is written into then
  static Model beside(const std::string& operation) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).layer("behind", {5, 4, 1, 1}, 5).norm("norm", 4);
    return model.forward(fmt::format("u = torch.tanh({})\ny = {}\nv = {}\nv.add_(1.0)\nreturn {}, v", conv("conv", "x"),
                                     batch_norm("norm", "u"), operation, conv("behind", "y")));
  }

  const at::Tensor x = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_P(HandsOn, DeclinesAWriteIntoWhatMayBeTheNormsInput) {
  expect_kept(beside(GetParam()).module, {x}, "norm", Reason::value_changed_in_place, "aten::add_");
}

INSTANTIATE_TEST_SUITE_P(Operators, HandsOn,
                         ::testing::Values("torch.atleast_1d(u)", "torch.atleast_2d(u)", "torch.atleast_3d(u)",
                                           "u.sum_to_size([2, 4, 6, 6])", "u.to_dense()", "u.unsafe_chunk(1)[0]",
                                           "u.unsafe_split(2)[0]"));

using Copies = HandsOn;

TEST_F(Copies, LetTheNormFoldBesideAWriteIntoThem) {
  for (const char* copy : {"u.clone()", "torch.relu(u)"}) expect_folded(beside(copy).module, {x}, "norm", "behind");
}

// A residual block whose norm stands behind an activation: its scale must be divided out of the stream, which others read.
class Rescaling : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static std::string conv(const std::string& path, const std::string& value, int padding = 1) {
    return fmt::format("torch.conv2d({1}, self.{0}.weight, self.{0}.bias, [1, 1], [{2}, {2}], [1, 1], 1)", path, value, padding);
  }

  // u --> inner --> gelu --> norm, + u
  static Model block(const std::string& between = "", const std::string& result = "s") {
    Model model;
    for (const char* layer : {"stem", "inner", "beside"}) model.layer(layer, {4, 4, 3, 3}, 4);
    model.layer("head", {4, 4, 1, 1}, 4).norm("norm", 4);
    scales(model).abs_().add_(0.1);
    return model.forward(fmt::format("u = {}\ny = torch.gelu({})\n{}s = {} + u\ns = {}\nreturn {}", conv("stem", "x"),
                                     conv("inner", "u"), between, batch_norm("norm", "y"), conv("head", "s", 0), result));
  }

  static at::Tensor scales(const Model& model) { return model.module.attr("norm").toModule().attr("weight").toTensor(); }

  const at::Tensor x = at::randn({2, 4, 6, 6}, at::kDouble);
};

TEST_F(Rescaling, DividesAStreamAndGivesItsReadersTheScaleBack) {
  expect_folded(block().module, {x}, "norm", "inner, stem, head");
}

TEST_F(Rescaling, SendsZeroScalesBackThroughTheActivation) {
  const Model model = block();
  scales(model).select(0, 1).zero_();
  const FoldResult result = expect_folded(model.module, {x}, "norm", "inner, stem, head");
  EXPECT_TRUE(result.report.kept.empty());
}

TEST_F(Rescaling, ServesSeveralReaders) {
  const Model model = block("v = " + conv("beside", "u.mean([2, 3], keepdim=True)") + "\n", "s + v");
  expect_folded(model.module, {x}, "norm", "inner, stem, beside, head");
}

TEST_F(Rescaling, DeclinesAReaderThatTakesNoScale) {
  const Model model = block("v = torch.sigmoid(u)\n", "s + v");
  expect_stopped(model.module, {x}, "norm", "forward, other readers rescaled", Reason::operator_not_affine);
}

TEST_F(Rescaling, PassesPositiveScalesThroughAnActivationOfAReader) {
  expect_folded(block("v = " + conv("beside", "torch.relu(u)") + "\n", "s + v").module, {x}, "norm", "inner, stem, beside, head");
}

TEST_F(Rescaling, DeclinesAnActivationOfAReaderThatWouldBecomeABound) {
  const Model model = block("v = " + conv("beside", "torch.relu(u)") + "\n", "s + v");
  scales(model).select(0, 1).neg_();
  expect_stopped(model.module, {x}, "norm", "forward, other readers rescaled", Reason::scale_not_positive);
}

TEST_F(Rescaling, DeclinesAStreamThatIsReturned) {
  expect_stopped(block("", "s, u").module, {x}, "norm", "forward, other readers rescaled", Reason::value_in_container);
}

TEST_F(Rescaling, DoesNoHarmBesideAReaderThatWritesInPlace) {
  expect_unharmed(block("v = u.mul_(2.0)\n", "s + v").module, {x});
}

// y = conv(x), read by the layer last and by a norm without a shift, whose output an activation reads
Model scaled_beside(const std::string& activation) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).layer("last", {4, 4, 1, 1}, 4).norm("norm", 4);
  without_shift(model);
  tensor_of(model, "weight").abs_().add_(0.5);
  return model.forward("y = " + test::conv("conv", "x") + "\nz = torch." + activation + "(" + batch_norm("norm", "y") +
                       ")\nreturn " + test::conv("last", "y") + " + torch.sigmoid(z)");
}

TEST_F(Rescaling, RescalesTheOtherReaderOfANormsInput) {
  expect_folded(scaled_beside("relu").module, {x}, "norm", "last, conv");
}

TEST_F(Rescaling, TakesAWriteIntoTheNormsOutputWhereItsInputIsReadToo) {
  expect_folded(scaled_beside("relu_").module, {x}, "norm", "last, conv");
}

// y = conv(x), `between`, a norm, and what writes into a part of it
Model written_behind(const std::string& between, const std::string& others) {
  Model model;
  model.layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  return model.forward("y = " + test::conv("conv", "x") + "\n" + between + "z = " + batch_norm("norm", "y") +
                       "\nz[:, 1:] = 0.5\nz[:, :2].mul_(2.0)\nreturn z" + others);
}

TEST_F(Rescaling, GoesBackwardWhereTheNormsOutputIsWritten) {
  expect_folded(written_behind("", "").module, {x}, "norm", "conv");
  for (const auto& [between, others] :
       std::vector<std::pair<std::string, std::string>>{{"", " + torch.tanh(y)"}, {"y = y.expand(4, -1, -1, -1)\n", ""}}) {
    expect_kept(written_behind(between, others).module, {between.empty() ? x : x.narrow(0, 0, 1)}, "norm",
                Reason::value_changed_in_place);
  }
}

TEST_F(Rescaling, DeclinesAReaderThatLeadsBackToTheNorm) {
  const Model model = block("y = y * u\n");
  expect_stopped(model.module, {x}, "norm", "forward, other readers rescaled", Reason::value_has_other_readers);
}

TEST_F(Rescaling, DeclinesScalesThatLeaveTheRange) {
  const Model model = block();
  scales(model).fill_(1e-80);
  expect_stopped(model.module, {x}, "norm", "forward, other readers rescaled", Reason::scale_not_invertible);
}

TEST_F(Rescaling, TakesNoShiftOutOfAStream) {
  Model model;
  model.layer("stem", {4, 4, 3, 3}, 4).layer("head", {4, 4, 1, 1}, 4).norm("norm", 4);
  model.forward(fmt::format("u = {}\ns = torch.sigmoid({}) + {}\nreturn s", conv("stem", "x"), batch_norm("norm", "u"),
                            conv("head", "u", 0)));
  expect_kept(model.module, {x}, "norm", Reason::value_has_other_readers);
}

TEST_F(Planner, TakesAWriteInABranchIntoTheNormalizedValue) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).norm("norm", 3);
  model.forward("y = " + norm("x") + "\nz = " + conv("x") + "\nif bool(x.sum() > 0):\n  z = " + conv("torch.relu_(y)") +
                "\nreturn z");
  expect_folded(model.module, {x}, "norm", "conv", with_rank(4));
}

TEST_F(Planner, MakesOneBoundOfWhatTwoPartsLack) {
  Model model;
  model.layer("conv", {4, 6, 3, 3}).norm("norm", 3);
  model.forward("y = " + norm("x") + "\nreturn " + conv("torch.clamp(torch.cat([y, y], 1), -1.0, 1.0)"));
  expect_folded(model.module, {x}, "norm", "conv", with_rank(4));
}

// What a plan took of ranks and nothing proves is checked where the norm stands.
class RankChecks : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static int64_t checks_in(const FoldResult& result) { return count_nodes(result.module, "prim::RaiseException"); }

  static void expect_refused(FoldResult result, const at::Tensor& input, const std::string& rank) {
    try {
      result.module.forward({input});
      FAIL() << "it runs on " << input.sizes();
    } catch (const std::exception& error) {
      EXPECT_NE(std::string(error.what()).find("inputs of rank " + rank), std::string::npos) << error.what();
    }
  }

  static Model linear_norm(const std::string& behind) {
    Model model;
    model.layer("linear", {6, 4}, 6).norm("norm", 6);
    return model.forward("y = torch.linear(x, self.linear.weight, self.linear.bias)\nn = " + batch_norm("norm", "y") + "\n" +
                         behind);
  }

  static Model conv_norm(const std::string& behind) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).layer("head", {5, 4, 1, 1}, 5).norm("norm", 4);
    return model.forward("y = " + conv("conv", "x") + "\n" + behind);
  }

  const at::Tensor image = at::randn({2, 3, 6, 6}, at::kDouble);
  const at::Tensor unbatched = at::randn({3, 6, 6}, at::kDouble);  // 4 channels leave the layer in 4 rows
  const at::Tensor rows = at::randn({3, 4}, at::kDouble);
  const at::Tensor sequences = at::randn({3, 6, 4}, at::kDouble);  // as many steps as features
};

TEST_F(RankChecks, OfWhatIsAssumedInTheMiddleOfAWay) {
  const Model model = conv_norm("return " + batch_norm("norm", "y.view([y.size(0), 4, -1])"));
  const FoldResult result = expect_folded(model.module, {image}, "norm", "conv");
  EXPECT_EQ(checks_in(result), 1);
  expect_refused(result, unbatched, "4");
}

TEST_F(RankChecks, AreNoneWhereTheModuleHasOne) {
  const Model model = conv_norm("assert x.dim() == 4\nreturn " + batch_norm("norm", "y.view([y.size(0), 4, -1])"));
  EXPECT_EQ(checks_in(expect_folded(model.module, {image}, "norm", "conv")), 1);
}

TEST_F(RankChecks, OfAProductThatAnExampleTellsOf) {
  Model model;
  model.layer("linear", {6, 4}, 6).norm("norm", 4).parameter("factor", at::randn({4}, at::kDouble));
  model.forward("y = torch.softmax(self.factor, 0).view([1, 4]) * x\nreturn torch.linear(" + batch_norm("norm", "y") +
                ", self.linear.weight, self.linear.bias)");
  const FoldResult result = expect_folded(model.module, {rows}, "norm", "linear", with_rank(2));
  EXPECT_EQ(checks_in(result), 1);
  expect_refused(result, at::randn({2, 4, 4}, at::kDouble), "2");
}

TEST_F(RankChecks, AreNeededBesideAProofThatMayNotRun) {
  const Model model = linear_norm("if n.dim() == 2:\n  n = n.permute([1, 0])\nreturn n");
  const FoldResult result = expect_folded(model.module, {rows}, "norm", "linear");
  EXPECT_EQ(checks_in(result), 1);
  expect_refused(result, sequences, "2");
}

TEST_F(RankChecks, AreNoneBesideAProofThatRuns) {
  EXPECT_EQ(checks_in(expect_folded(linear_norm("return n.permute([1, 0])").module, {rows}, "norm", "linear")), 0);
}

TEST_F(RankChecks, AreNeededBesideAProofInALoop) {
  const Model model = linear_norm("for i in range(3 - n.dim()):\n  n = n.permute([1, 0])\nreturn n");
  expect_refused(expect_folded(model.module, {rows}, "norm", "linear"), sequences, "2");
}

TEST_F(RankChecks, StandInTheBranchOfTheNorm) {
  const std::string choice =
      "if x.dim() == 4:\n  n = " + batch_norm("norm", "y") + "\nelse:\n  n = torch.zeros_like(y)\nreturn n";
  const FoldResult result = expect_folded(conv_norm(choice).module, {image}, "norm", "conv");
  EXPECT_EQ(checks_in(result), 1);
  expect_folded(conv_norm(choice).module, {unbatched}, "norm", "conv");
  const std::string other =
      "if bool(x.sum() > -1e9):\n  n = " + batch_norm("norm", "y") + "\nelse:\n  n = torch.zeros_like(y)\nreturn n";
  expect_refused(expect_folded(conv_norm(other).module, {image}, "norm", "conv"), unbatched, "4");
}

TEST_F(RankChecks, AreNoneInABranchThatHasOne) {
  const std::string checked = "if bool(x.sum() > -1e9):\n  assert x.dim() == 4\n  n = " + batch_norm("norm", "y") +
                              "\nelse:\n  n = torch.zeros_like(y)\nreturn n";
  EXPECT_EQ(checks_in(expect_folded(conv_norm(checked).module, {image}, "norm", "conv")), 1);
}

// u is read in the branch and outside, where it is divided by the scale that the norm takes out of it.
TEST_F(RankChecks, DeclinesWhereTheyWouldStandOutsideTheBranch) {
  const std::string choice = "u = torch.relu(y)\nv = " + conv("head", "u") + "\nif bool(x.sum() > -1e9):\n  n = torch.sigmoid(" +
                             batch_norm("norm", "u") + ")\nelse:\n  n = v\nreturn n, v";
  for (const bool proven : {false, true}) {
    Model model = conv_norm((proven ? "assert x.dim() == 4\n" : "") + choice);
    without_shift(model);
    tensor_of(model, "weight").abs_().add_(0.5);
    if (proven) {
      expect_folded(model.module, {image}, "norm", "head, conv");
    } else {
      expect_stopped(model.module, {image}, "norm", "backward, other readers rescaled", Reason::rank_unknown,
                     "may not be reached");
    }
  }
}

TEST_F(RankChecks, AreOneForAllNormsOfOneInput) {
  Model model;
  model.layer("conv1", {4, 3, 1, 1}, 4).layer("conv2", {4, 4, 1, 1}, 4).norm("norm1", 4).norm("norm", 4);
  model.forward("y = torch.relu(" + batch_norm("norm1", conv("conv1", "x")) + ")\nreturn y + " +
                batch_norm("norm", conv("conv2", "y")));
  const FoldResult result = expect_folded(model.module, {image}, "norm", "conv2");
  EXPECT_TRUE(result.report.kept.empty());
  EXPECT_EQ(checks_in(result), 1);
  expect_refused(result, unbatched, "4");
}

// A mean of [C] can't be normalized.
TEST_F(RankChecks, AreNoneWhereANormBehindAsksForTheRank) {
  Model model;
  model.layer("conv", {4, 3, 1, 1}, 4).norm("norm", 4);
  model.forward("y = torch.mean(" + conv("conv", "x") + ", [2, 3])\nreturn " + batch_norm("norm", "y"));
  EXPECT_EQ(checks_in(expect_folded(model.module, {image}, "norm", "conv")), 0);
  EXPECT_THROW(model.module.forward({unbatched}), std::exception);
}

TEST_F(RankChecks, AreOneForEachInput) {
  Model model;
  model.layer("one", {4, 3, 1, 1}, 4).layer("other", {4, 3, 1, 1}, 4).norm("norm", 8);
  model.define("def forward(self, x, z):\n  y = torch.cat([" + conv("one", "x") + ", " + conv("other", "z") + "], 1)\n  return " +
               batch_norm("norm", "y") + "\n");
  EXPECT_EQ(checks_in(expect_folded(model.module, {image, image}, "norm", "other, one")),
            1);  // a concatenation asks for one rank
  model = Model();
  model.layer("one", {4, 3, 1, 1}, 4).layer("other", {4, 3, 1, 1}, 4).norm("norm", 4);
  model.define("def forward(self, x, z):\n  return " + batch_norm("norm", conv("one", "x") + " + " + conv("other", "z")) + "\n");
  FoldResult result = expect_folded(model.module, {image, image}, "norm", "other, one");
  EXPECT_EQ(checks_in(result), 2);
  EXPECT_THROW(result.module.forward({image, unbatched}), std::exception);
}

TEST_F(RankChecks, AreOfNoUseWhereDimensionsChangeInPlace) {
  expect_folded(linear_norm("return n").module, {rows}, "norm", "linear");
  expect_kept(linear_norm("x.unsqueeze_(0)\nreturn n").module, {rows}, "norm", Reason::rank_unknown, "in place");
}

// An example tells more, and never takes from what is known without it.
TEST_F(RankChecks, AreNotMadeWhereAnExampleWasGivenThatTheyMightRefuse) {
  Model unknown;
  unknown.layer("linear", {6, 4}, 6).norm("norm", 6);
  unknown.forward("y = torch.linear(torch.atleast_1d(x), self.linear.weight, self.linear.bias)\nreturn " +
                  batch_norm("norm", "y"));
  expect_folded(unknown.module, {rows}, "norm", "linear");
  for (const int64_t rank : {2, 3}) {
    expect_kept(unknown.module, {rows}, "norm", Reason::rank_unknown, "don't tell", with_rank(rank));
  }
}

// Eager can't run these two, and folding them must not crash.
TEST_F(Planner, KeepsANormOfAVector) {
  const FoldResult result = fold(with("return " + norm("x.flatten()")).module, with_rank(4));
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(name(result.report.kept[0].reason), name(Reason::rank_unknown));
}

TEST_F(Planner, KeepsANormOfFewerChannelsThanAConcatenationHas) {
  const FoldResult result = fold(with("y = " + conv() + "\nreturn " + norm("torch.cat([y, y], 1)")).module, with_rank(4));
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(name(result.report.kept[0].reason), name(Reason::channels_differ));
}

// Its constants make the value larger, so it is no affine of each of its channels.
TEST_F(Planner, KeepsAFactorToWhoseSizeTheValueIsBroadcast) {
  for (const char* sizes : {"[3, 1, 1]", "[1, 1, 3, 1, 1]"}) {
    Model model;
    model.layer("conv", {4, 3, 3, 3}, 4).parameter("factor", at::randn({3}, at::kDouble));
    model.forward(fmt::format(
        "y = x * self.factor.view({})\nreturn torch.conv2d(y.flatten(0, -4), self.conv.weight, self.conv.bias)", sizes));
    const FoldResult result = expect_unharmed(model.module, {at::randn({2, 1, 6, 6}, at::kDouble)}, with_rank(4));
    EXPECT_TRUE(result.report.scales.empty()) << sizes;
  }
}

// linear --> y * w + b, with constants of these sizes, for inputs of every rank
FoldResult with_constants_behind_linear(at::IntArrayRef sizes) {
  Model model;
  model.layer("linear", {4, 3}, 4).parameter("w", random_scale(4).view(sizes)).parameter("b", at::randn(sizes, at::kDouble));
  model.forward("y = torch.linear(x, self.linear.weight, self.linear.bias)\nreturn torch.relu((y - self.b) * self.w + self.b)");
  FoldResult result = fold(model.module);
  for (const at::Tensor& x : {at::randn({2, 3}, at::kDouble), at::randn({2, 5, 3}, at::kDouble)}) {
    expect_same_output(model.module, result.module, {x});
  }
  return result;
}

TEST_F(Planner, AsksNoRankForConstantsOfTheLastDimension) {
  const FoldResult result = with_constants_behind_linear({4});
  EXPECT_EQ(result.report.folded.size(), 1U);
  EXPECT_EQ(count_nodes(result.module, "prim::RaiseException"), 0);
}

TEST_F(Planner, AsksTheRankForConstantsOfSeveralDimensions) {
  const FoldResult result = with_constants_behind_linear({1, 4});
  ASSERT_EQ(result.report.kept.size(), 1U);
  EXPECT_EQ(result.report.kept[0].reason, Reason::rank_unknown);
}

TEST_F(Planner, LooksIntoAViewBehindASum) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).layer("second", {4, 4, 1, 1}, 4).layer("linear", {2, 4}, 2).norm("norm", 4);
  model.forward(
      fmt::format("u = {}\nu = u + torch.conv2d(torch.relu(u), self.second.weight)\ny = torch.relu({})\n"
                  "y = torch.adaptive_avg_pool2d(y, [1, 1]).view([x.size(0), 4])\nreturn torch.linear(y, self.linear.weight)",
                  bnfold::test::conv("conv", "x"), batch_norm("norm", "u")));
  expect_folded(model.module, {x}, "norm", "linear");
}

// The norm y of a sum that may lie in memory in any order, and a linear layer of `viewed`.
Model with_view_behind_permuted_sum(const std::string& viewed, const std::string& summed = conv("conv", "x")) {
  Model model;
  model.layer("conv", {4, 3, 3, 3}, 4).layer("linear", {2, 4}, 2).norm("norm", 4);
  return model.forward(
      fmt::format("u = {}\nu = u.transpose(2, 3) + torch.sigmoid(u)\ny = {}\nreturn torch.linear({}, self.linear.weight)", summed,
                  batch_norm("norm", "u"), viewed));
}

TEST_F(Planner, LooksIntoAViewOfWhatIsLaidOutAnew) {
  const Model model = with_view_behind_permuted_sum("y.mean([2, 3], True).view([x.size(0), 4])");
  expect_folded(model.module, {x}, "norm", "linear");
}

TEST_F(Planner, LooksIntoAViewThatChangesNoSize) {
  const std::string summed = fmt::format("torch.adaptive_avg_pool2d({}, [4, 4])", bnfold::test::conv("conv", "x"));
  const Model same = with_view_behind_permuted_sum("y.view([x.size(0), 4, 4, 4]).transpose(1, -1)", summed);
  expect_folded(same.module, {x}, "norm", "linear");
  const Model other = with_view_behind_permuted_sum("y.view([x.size(0), 4, 16]).transpose(1, -1)", summed);
  expect_stopped(other.module, {x}, "norm", "forward", Reason::memory_order_unknown, "view");
}

TEST_F(Planner, DoesNotLookIntoAViewBehindASumOfPermutedValues) {
  const Model model = with_view_behind_permuted_sum("torch.adaptive_avg_pool2d(torch.relu(y), [1, 1]).view([x.size(0), 4])");
  expect_stopped(model.module, {x}, "norm", "forward", Reason::memory_order_unknown, "view");
}

}  // namespace
}  // namespace bnfold::test
