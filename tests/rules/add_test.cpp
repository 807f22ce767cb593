#include <fmt/format.h>
#include <gtest/gtest.h>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

Model& without_zero_scale(Model& model) {
  tensor_of(model, "weight").abs_().add_(0.1).mul_(at::where(at::arange(tensor_of(model, "weight").numel()).eq(1), -1.0, 1.0));
  return model;
}

// y = x + shift, to the last bit
Model& with_shift_only(Model& model) {
  tensor_of(model, "weight").fill_(1);
  tensor_of(model, "running_mean").zero_();
  tensor_of(model, "running_var").fill_(1 - 1e-5);
  return model;
}

// The numbers that the graph of forward adds, without how often they count.
std::vector<double> numbers_added(const torch::jit::Module& module) {
  std::vector<double> numbers;
  for_each_node(module.get_method("forward").graph()->block(), [&numbers](const torch::jit::Node* node) {
    const std::string operation = node->kind().toUnqualString();
    if (operation.rfind("add", 0) != 0 && operation.rfind("sub", 0) != 0) return;
    if (const auto number = constant_number(node->input(1))) numbers.push_back(*number);
  });
  return numbers;
}

void expect_no_number_added(const torch::jit::Module& module) {
  for (const double number : numbers_added(module)) EXPECT_EQ(number, 0) << *module.get_method("forward").graph();
}

class AddRule : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  static Model sum_then_norm(const std::string& sum, at::IntArrayRef addend = {5}) {
    Model model;
    model.layer("linear", {3, 5}).parameter("shift.bias", at::randn(addend, at::kDouble)).norm("norm", 5);
    return model.forward(fmt::format("y = torch.mm(x, self.linear.weight)\ny = {}\nreturn {}", sum, batch_norm("norm", "y")));
  }

  // u = conv1(x), v = conv2(x), norm of the sum
  static Model two_convs(const std::string& sum, const std::string& behind = "") {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4).layer("conv2", {4, 3, 3, 3}, 4).norm("norm", 4);
    return model.forward(fmt::format("u = {}\nv = {}\ny = {}\nreturn {}{}", conv("conv1", "x"), conv("conv2", "x"), sum,
                                     batch_norm("norm", "y"), behind));
  }

  const at::Tensor x = at::randn({4, 3}, at::kDouble);
  const at::Tensor image = at::randn({2, 3, 6, 6}, at::kDouble);
};

TEST_F(AddRule, GivesShiftToTheStaticAddendAndScaleToBoth) {
  const FoldResult result = expect_folded(sum_then_norm("y + self.shift.bias").module, {x}, "norm", "linear");
  EXPECT_EQ(state_names(result.module), (std::vector<std::string>{"linear.weight", "shift.bias"}));
}

TEST_F(AddRule, TakesTheInPlaceFormToo) {
  expect_folded(sum_then_norm("y.add_(self.shift.bias)").module, {x}, "norm", "linear");
}

TEST_F(AddRule, ChecksTheRankBeforeAnAddendThatFitsNoOther) {
  Model model;
  model.norm("first", 5).parameter("shift.bias", at::randn({1}, at::kDouble)).norm("norm", 5);
  model.forward("y = " + batch_norm("first", "x") + " + self.shift.bias\nreturn " + batch_norm("norm", "y"));
  FoldResult result = expect_folded(model.module, {at::randn({4, 5}, at::kDouble)}, "norm", "first");
  try {
    result.module.forward({at::randn({4, 5, 3}, at::kDouble)});
    FAIL() << "it runs on another rank";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("inputs of rank 2"), std::string::npos) << error.what();
  }
}

TEST_F(AddRule, TakesAStaticAddendThatCountsSeveralTimes) {
  expect_folded(sum_then_norm("torch.add(y, self.shift.bias, alpha=2)").module, {x}, "norm", "linear");
  expect_folded(sum_then_norm("torch.sub(y, self.shift.bias, alpha=3)").module, {x}, "norm", "linear");
}

TEST_F(AddRule, DeclinesAStaticAddendAlongAnotherDimensionOfAnotherSize) {
  Model model;
  model.parameter("shift.bias", at::randn({6}, at::kDouble)).norm("norm", 3);
  model.forward("return " + batch_norm("norm", "torch.tanh(x) + self.shift.bias"));
  expect_stopped(model.module, {at::randn({2, 3, 6}, at::kDouble)}, "norm", "backward", Reason::affine_varies_elsewhere,
                 "another size");
}

TEST_F(AddRule, TakesAStaticAddendOfOneElement) {
  expect_folded(sum_then_norm("y + self.shift.bias", {1}).module, {x}, "norm", "linear");
}

TEST_F(AddRule, TakesANumber) {
  expect_folded(sum_then_norm("y + 2.5").module, {x}, "norm", "linear");
  expect_folded(sum_then_norm("torch.sub(y, 2, alpha=3)").module, {x}, "norm", "linear");
}

TEST_F(AddRule, LeavesNoNumber) {
  for (const char* sum : {"y + 2.5", "y.add_(2.5)", "torch.add(y, 3.0, alpha=2)", "torch.sub(y, 2, alpha=3)",
                          "torch.sub(y + 5.0, -7, alpha=2).sub_(3.0)"}) {
    const Model model = sum_then_norm(sum);
    EXPECT_FALSE(numbers_added(model.module).empty());
    expect_no_number_added(expect_folded(model.module, {x}, "norm", "linear").module);
  }
}

TEST_F(AddRule, LeavesNoRoundingErrorOfALargeNumber) {
  for (const char* sum : {"y + 10000.0", "y.add_(10000)", "torch.sub(y, 5000.0, alpha=-2)", "y + self.shift.bias"}) {
    Model model = sum_then_norm(sum, {});
    model.module.attr("shift").toModule().attr("bias").toTensor().fill_(10000);
    const at::Tensor weight = model.module.attr("linear").toModule().attr("weight").toTensor().mul_(2000);
    const at::Tensor sample = at::mm(at::randn({64, 3}, at::kDouble), weight) + 10000;
    tensor_of(model, "running_mean").copy_(sample.mean(0));
    tensor_of(model, "running_var").copy_(sample.var(0));
    model.module.to(at::kFloat);
    const FoldResult result = expect_folded(model.module, {x}, "norm", "linear");
    expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kFloat)}, 1e-5);
  }
}

TEST_F(AddRule, DeclinesANumberThatIsComputed) {
  expect_kept(sum_then_norm("y + x.size(0)").module, {x}, "norm", Reason::operand_not_constant, "addend");
}

TEST_F(AddRule, DeclinesAnAlphaThatIsComputed) {
  expect_kept(sum_then_norm("torch.add(y, self.shift.bias, alpha=x.size(0))").module, {x}, "norm", Reason::operand_not_constant,
              "alpha");
}

TEST_F(AddRule, DeclinesAStaticAddendOfAnotherDtype) {
  Model model;
  model.layer("linear", {3, 5}).parameter("narrow.bias", at::randn({5}, at::kFloat)).norm("norm", 5);
  model.forward(fmt::format("y = torch.mm(x, self.linear.weight) + self.narrow.bias\nreturn {}", batch_norm("norm", "y")));
  expect_stopped(model.module, {x}, "norm", "backward", Reason::weight_dtype_unsupported, "addend");
}

// A sum that begins with zeros: y = zeros(...); y = y + conv(x).
class ZerosInASum : public AddRule {
 protected:
  static Model with_zeros(const std::string& zeros, const std::string& sum, const std::string& write = "") {
    Model model;
    model.layer("conv1", {4, 3, 3, 3}, 4)
        .layer("conv2", {4, 3, 3, 3}, 4)
        .norm("norm", 4)
        .buffer("none.zeros", at::zeros({4, 1, 1}, at::kDouble));
    model.forward(fmt::format("u = {}\nv = {}\nz = {}\n{}\nreturn {}", conv("conv1", "x"), conv("conv2", "x"), zeros,
                              write.empty() ? "pass" : write, batch_norm("norm", "(" + sum + ")")));
    return model;
  }

  const char* const made = "torch.zeros([x.size(0), 4, 4, 4], dtype=x.dtype)";
};

TEST_F(ZerosInASum, LetTheAffinePass) {
  for (const char* zeros : {made, "torch.zeros_like(u)", "torch.zeros_like(torch.conv2d(x, self.conv1.weight).relu())",
                            "x.new_zeros([1, 1])", "self.none.zeros"}) {
    for (const int64_t batch : {1, 3}) {
      const at::Tensor images = at::randn({batch, 3, 6, 6}, at::kDouble);
      expect_folded(with_zeros(zeros, "z + v").module, {images}, "norm", "conv2", with_rank(4));
      expect_folded(with_zeros(zeros, "z + u + v").module, {images}, "norm", "conv2, conv1", with_rank(4));
      expect_folded(with_zeros(zeros, "v - z").module, {images}, "norm", "conv2", with_rank(4));
    }
  }
}

TEST_F(ZerosInASum, LetTheAffinePassInPlace) {
  expect_folded(with_zeros("torch.zeros_like(v)", "z", "z += u").module, {image}, "norm", "conv1", with_rank(4));
}

TEST_F(ZerosInASum, DeclineOnes) {
  const char* ones = "torch.ones([x.size(0), 4, 4, 4], dtype=x.dtype)";
  expect_kept(with_zeros(ones, "z + v").module, {image}, "norm", Reason::sizes_unknown, "broadcast", with_rank(4));
}

TEST_F(ZerosInASum, DeclineZerosThatAreOverwritten) {
  expect_kept(with_zeros(made, "z + v", "z[:, 0] = 1.0").module, {image}, "norm", Reason::sizes_unknown, "broadcast",
              with_rank(4));
}

TEST_F(ZerosInASum, DeclineADifferenceFromThem) {
  expect_kept(with_zeros(made, "z - v").module, {image}, "norm", Reason::sizes_unknown, "broadcast", with_rank(4));
}

TEST_F(ZerosInASum, DeclineAnAddendThatMayBeBroadcast) {
  expect_kept(with_zeros(made, "z + torch.amax(v, [1], True)").module, {image}, "norm", Reason::sizes_unknown, "broadcast",
              with_rank(4));
}

TEST_F(AddRule, DeclinesAnAddendForEachRow) {
  expect_kept(sum_then_norm("y + self.shift.bias", {4, 1}).module, {x}, "norm", Reason::affine_varies_elsewhere, "addend");
}

TEST_F(AddRule, DeclinesAnAddendThatMayBeBroadcast) {
  expect_kept(sum_then_norm("y + torch.amax(x, [1], True)").module, {x}, "norm", Reason::sizes_unknown, "broadcast");
}

TEST_F(AddRule, DeclinesWhereTheNormWorksAlongAnotherDimension) {
  Model model;
  model.layer("linear", {3, 5}).parameter("shift.bias", at::randn({5}, at::kDouble)).norm("norm", 5);
  model.forward(fmt::format("y = torch.matmul(x, self.linear.weight) + self.shift.bias\nreturn {}", batch_norm("norm", "y")));
  Options options;
  options.input_ranks = {3};
  expect_kept(model.module, {at::randn({2, 5, 3}, at::kDouble)}, "norm", Reason::affine_varies_elsewhere, "addend", options);
}

TEST_F(AddRule, GivesBothComputedAddendsTheScale) {
  for (const char* sum : {"u + v", "u.add_(v)", "torch.add(u, v, alpha=3)", "u - v", "u.sub_(v)", "torch.sub(u, v, alpha=2)"}) {
    expect_folded(two_convs(sum).module, {image}, "norm", "conv2, conv1");
  }
}

TEST_F(AddRule, GivesTheScaleToTwoAddendsOfOneDtype) {
  const at::Tensor large = image * 20;
  expect_folded(two_dtypes(at::kDouble, at::kDouble, "u + v").module, {large, large}, "norm", "conv2, conv1");
  expect_folded(two_dtypes(at::kFloat, at::kFloat, "u + v").module, {large, large}, "norm", "conv2, conv1");
}

TEST_F(AddRule, DeclinesANarrowAddendWhoseScaledValuesWouldLeaveItsRange) {
  const at::Tensor large = image * 20;
  for (const auto& [sum, reason] : {std::pair("u + v", Reason::dtypes_differ), std::pair("v + u", Reason::dtypes_differ),
                                    std::pair("v.sub_(u)", Reason::value_changed_in_place)}) {
    const Model model = two_dtypes(at::kHalf, at::kFloat, sum);
    const FoldResult result = expect_kept(model.module, {large, large}, "norm", reason);
    expect_same_output_in_own_dtype(model.module, result.module, {large.to(at::kHalf), large.to(at::kFloat)}, 5e-3);
  }
}

TEST_F(AddRule, DeclinesWhereAnAddendHasAnotherReader) {
  expect_kept(two_convs("u + v", " * u.sum()").module, {image}, "norm", Reason::value_has_other_readers, "aten::sum");
}

TEST_F(AddRule, DeclinesWhereAnAddendIsComputedByAnotherOperator) {
  expect_kept(two_convs("u + torch.sigmoid(v)").module, {image}, "norm", Reason::operator_not_affine, "sigmoid");
}

TEST_F(AddRule, DeclinesTheSumOfAValueAndItself) {
  expect_kept(two_convs("u + u").module, {image}, "norm", Reason::value_has_other_readers, "to itself");
}

TEST_F(AddRule, DoesNoHarmToAShiftOfTheSumOfAValueAndItself) {
  Model model = two_convs("u + u");
  expect_unharmed(with_shift_only(model).module, {image});
}

TEST_F(AddRule, DoesNoHarmToTheDifferenceOfAValueAndItself) {
  Model model = two_convs("torch.sub(u, u, alpha=3)");
  expect_unharmed(with_shift_only(model).module, {image});
}

TEST_F(AddRule, DoesNoHarmWhereOnlyTheShiftGoesBackIntoASumOfAValueAndItself) {
  Model model;
  model.layer("first", {4, 3, 3, 3}, 4).layer("conv", {4, 4, 3, 3}, 4).norm("norm", 4);
  model.forward(
      fmt::format("u = {}\ny = {}\nreturn {}", conv("first", "x"), batch_norm("norm", "(u + u)"), conv("conv", "y", 1)));
  expect_unharmed(model.module, {image});
}

TEST_F(AddRule, GivesTheShiftToTheAddendThatALayerMakes) {
  Model model = two_convs("torch.relu(u) + v");
  tensor_of(model, "weight").abs_();
  expect_folded(model.module, {image}, "norm", "conv2, conv1");
  model = two_convs("torch.sub(torch.relu(u), v, alpha=3)");
  tensor_of(model, "weight").abs_();
  expect_folded(model.module, {image}, "norm", "conv2, conv1");
}

TEST_F(AddRule, DeclinesAShiftThatNeitherAddendTakes) {
  Model model = two_convs("torch.relu(u) + torch.relu(v)");
  tensor_of(model, "weight").abs_();
  expect_kept(model.module, {image}, "norm", Reason::operator_not_affine);
}

// u = stem(x), c = conv(u); norm of the sum, where gammas of 0 can't be taken back from u
class AddOfItsInput : public AddRule {
 protected:
  static Model with(const std::string& sum, const std::string& call = conv("conv", "u", 1), at::IntArrayRef weight = {4, 4, 3, 3},
                    const std::string& behind = "") {
    Model model;
    model.layer("stem", {4, 3, 1, 1}, 4).layer("conv", weight, 4).layer("point", {4, 1, 1, 1}, 4).norm("norm", 4);
    return model.forward(
        fmt::format("u = {}\nc = {}\np = torch.conv2d(u, self.point.weight, self.point.bias, [1, 1], [0, 0], [1, 1], "
                    "4)\ns = {}\nreturn {}{}",
                    conv("stem", "x"), call, sum, batch_norm("norm", "s"), behind));
  }

  static std::string call(const std::string& arguments) {
    return fmt::format("torch.conv2d(u, self.conv.weight, self.conv.bias, {})", arguments);
  }
};

TEST_F(AddOfItsInput, BecomesATapOfTheConvolution) {
  for (const char* sum : {"c + u", "u + c", "c - u", "c.add_(u)", "torch.add(c, u, alpha=3)"}) {
    const FoldResult result = expect_folded(with(sum).module, {image}, "norm", "conv");
    EXPECT_EQ(count_nodes(result.module, "aten::add") + count_nodes(result.module, "aten::sub"), 0) << sum;
  }
}

TEST_F(AddOfItsInput, IsLeftOutOfASumOfSeveral) {
  for (const char* sum : {"(c + p) + u", "u + (c + p)", "(c + u) + p", "(p - c) + u"}) {
    const FoldResult result = fold(with(sum).module);
    EXPECT_TRUE(result.report.kept.empty()) << sum;
    expect_unharmed(with(sum).module, {image});
  }
}

TEST_F(AddOfItsInput, MeetsEveryConvolutionThatKeepsTheSize) {
  expect_folded(with("c + u", call("[1, 1], [0, 0], [1, 1], 1"), {4, 4, 1, 1}).module, {image}, "norm", "conv");
  expect_folded(with("c + u", call("[1, 1], [2, 2], [2, 2], 1")).module, {image}, "norm", "conv");
  expect_folded(with("c + u", call("[1, 1], [1, 1], [1, 1], 2"), {4, 2, 3, 3}).module, {image}, "norm", "conv");
  expect_folded(with("c + u", call("[1, 1], 'same', [1, 1], 4"), {4, 1, 3, 3}).module, {image.narrow(0, 0, 1)}, "norm", "conv");
}

TEST_F(AddOfItsInput, DeclinesAConvolutionOfAnotherSize) {
  expect_kept(with("c + u", call("[1, 1], 'same', [1, 1], 1"), {4, 4, 2, 2}).module, {image}, "norm",
              Reason::value_has_other_readers);
  const at::Tensor pixel = at::randn({2, 3, 1, 1}, at::kDouble);
  expect_kept(with("c + u", call("[2, 2], [1, 1], [1, 1], 1")).module, {pixel}, "norm", Reason::value_has_other_readers);
}

TEST_F(AddOfItsInput, DeclinesAConvolutionOfAnotherValue) {
  expect_kept(with("c + u", conv("conv", "torch.tanh(u)", 1)).module, {image}, "norm", Reason::value_has_other_readers);
}

TEST_F(AddOfItsInput, DeclinesAConvolutionThatCountsSeveralTimes) {
  expect_kept(with("torch.add(u, c, alpha=2)").module, {image}, "norm", Reason::value_has_other_readers);
  expect_kept(with("u - c").module, {image}, "norm", Reason::value_has_other_readers);
}

TEST_F(AddOfItsInput, DeclinesWhereTheConvolutionIsReadToo) {
  expect_kept(with("c + u", conv("conv", "u", 1), {4, 4, 3, 3}, " * c").module, {image}, "norm", Reason::value_has_other_readers);
}

TEST_F(AddOfItsInput, DeclinesWhereItIsWrittenBetween) {
  EXPECT_EQ(expect_unharmed(with("c + u.mul_(2.0)").module, {image}).report.folded.size(), 0U);
}

// As conv(u) + u is permuted in memory where u is, and conv(u) may not be.
TEST_F(AddOfItsInput, DeclinesAnOrderThatAViewSees) {
  const auto viewed = [](const std::string& value) {
    Model model;
    model.layer("conv", {4, 4, 3, 3}, 4).layer("stem", {4, 4, 1, 1}, 4).norm("norm", 4);
    return model.forward(
        fmt::format("u = {}\ns = u + {}\nt = s.flatten(2)\nreturn {}", value, conv("conv", "u", 1), batch_norm("norm", "t")));
  };
  const at::Tensor wide = at::randn({2, 4, 6, 6}, at::kDouble);
  expect_folded(viewed(conv("stem", "x")).module, {wide}, "norm", "conv", with_rank(4));
  expect_kept(viewed("x.transpose(2, 3)").module, {wide}, "norm", Reason::value_has_other_readers, "", with_rank(4));
}

class AddForward : public AddRule {
 protected:
  // y is the norm of x, u = conv1(x); conv of the sum
  static Model before_conv(const std::string& sum, const std::string& behind = "") {
    Model model;
    model.layer("conv1", {3, 3, 1, 1}, 3).layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
    model.forward(fmt::format("y = {}\nu = {}\nz = {}\nreturn {}{}", batch_norm("norm", "x"), conv("conv1", "torch.tanh(x)"), sum,
                              conv("conv", "z"), behind));
    return without_zero_scale(model);
  }
};

TEST_F(AddForward, GivesTheOtherAddendTheInverseScale) {
  for (const char* sum : {"y + u", "u + y", "y - u", "u - y", "torch.add(y, u, alpha=2)", "torch.sub(u, y, alpha=2)"}) {
    const FoldResult result = expect_folded(before_conv(sum).module, {image}, "norm", "conv1, conv");
    EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
  }
}

TEST_F(AddForward, PassesZerosWithScalesOfZero) {
  for (const char* sum : {"y + z", "z + y", "y - z"}) {
    Model made;
    made.layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
    made.forward(fmt::format("y = {}\nz = torch.zeros([1, 1, 6, 6], dtype=x.dtype)\nreturn {}", batch_norm("norm", "x"),
                             conv("conv", "(" + std::string(sum) + ")")));
    expect_folded(made.module, {image}, "norm", "conv", with_rank(4));
  }
}

TEST_F(AddForward, DeclinesADifferenceFromZerosWithScalesOfZero) {
  Model model;
  model.layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
  model.forward(fmt::format("y = {}\nz = torch.zeros([1, 1, 6, 6], dtype=x.dtype)\nreturn {}", batch_norm("norm", "x"),
                            conv("conv", "(z - y)")));
  expect_stopped(model.module, {image}, "norm", "forward", Reason::scale_not_invertible, "scale of 0", with_rank(4));
}

TEST_F(AddForward, TakesTheInPlaceFormsToo) {
  for (const char* sum : {"y.add_(u)", "y.sub_(u)"}) {
    FoldResult result = expect_folded(before_conv(sum).module, {image}, "norm", "conv1, conv");
    const at::Tensor input = image.clone();
    result.module.forward({input});
    EXPECT_TRUE(at::equal(input, image)) << sum;
  }
}

TEST_F(AddForward, DeclinesASumInPlaceOfWhatMayHaveAnotherDtype) {
  for (const char* sum : {"u.add_(y)", "u.sub_(y)"}) {
    expect_stopped(before_conv(sum).module, {image}, "norm", "forward", Reason::value_changed_in_place,
                   sum[2] == 'a' ? "add_" : "sub_");
  }
}

TEST_F(AddForward, TakesANumber) {
  expect_folded(before_conv("y + 2.5").module, {image}, "norm", "conv");
  expect_folded(before_conv("torch.sub(y, 2.5, alpha=3).add_(1)").module, {image}, "norm", "conv");
}

TEST_F(AddForward, LeavesNoNumber) {
  for (const char* sum : {"y + 2.5", "y.add_(2.5)", "torch.add(y, 3.0, alpha=2)", "torch.sub(y, 2.5, alpha=3).add_(1)"}) {
    const Model model = before_conv(sum);
    EXPECT_FALSE(numbers_added(model.module).empty());
    expect_no_number_added(expect_folded(model.module, {image}, "norm", "conv").module);
  }
}

TEST_F(AddForward, LeavesNoRoundingErrorOfANumberThatIsLargeBesideTheInput) {
  const at::Tensor small = image * 1e-3;
  for (const char* sum : {"y + 100.0", "torch.add(y, 50, alpha=2)", "y.sub_(-100.0)"}) {
    Model model = before_conv(sum);
    tensor_of(model, "weight").mul_(30);
    tensor_of(model, "running_mean").mul_(1e-3);
    tensor_of(model, "running_var").fill_(1e-8);
    model.module.to(at::kFloat);
    const FoldResult result = expect_folded(model.module, {small}, "norm", "conv");
    expect_same_output_in_own_dtype(model.module, result.module, {small.to(at::kFloat)}, 1e-5);
  }
}

TEST_F(AddForward, DeclinesANumberThatIsComputed) {
  expect_stopped(before_conv("y + x.size(0)").module, {image}, "norm", "forward", Reason::operand_not_constant, "addend");
}

TEST_F(AddForward, DeclinesAnAlphaThatIsComputed) {
  expect_stopped(before_conv("torch.add(y, u, alpha=x.size(0))").module, {image}, "norm", "forward", Reason::operand_not_constant,
                 "alpha");
}

TEST_F(AddForward, AddsTheNormToItselfThroughALayer) {
  Model model;
  model.layer("conv1", {3, 3, 1, 1}, 3).layer("conv", {3, 3, 1, 1}, 3).norm("norm", 3);
  model.forward(fmt::format("y = {}\ny = y + {}\nreturn {}", batch_norm("norm", "x"), conv("conv1", "y"), conv("conv", "y")));
  expect_folded(without_zero_scale(model).module, {image}, "norm", "conv1, conv");
}

TEST_F(AddForward, DeclinesAZeroScale) {
  Model model = before_conv("y + u");
  tensor_of(model, "weight").select(0, 0).zero_();
  expect_stopped(model.module, {image}, "norm", "forward", Reason::scale_not_invertible);
}

TEST_F(AddForward, DeclinesTheSumOfTheNormAndItself) {
  expect_stopped(before_conv("y + y").module, {image}, "norm", "forward", Reason::sizes_unknown, "broadcast");
}

TEST_F(AddForward, DeclinesAnAddendThatMayBeBroadcast) {
  expect_stopped(before_conv("y + x.mean([1, 2, 3], True)").module, {image}, "norm", "forward", Reason::sizes_unknown,
                 "broadcast");
}

TEST_F(AddForward, DeclinesTheNormsOwnInputAsAddend) {
  EXPECT_EQ(expect_unharmed(before_conv("y + x").module, {image}).report.folded.size(), 0U);
}

TEST_F(AddForward, DeclinesAnAddendWithAnotherReader) {
  expect_stopped(before_conv("y + u", " + u").module, {image}, "norm", "forward", Reason::value_has_other_readers, "aten::add");
}

TEST_F(AddForward, LetsAShiftPassWhateverTheOtherAddendIs) {
  Model model = before_conv("y + torch.sigmoid(u)");
  expect_folded(with_shift_only(model).module, {image}, "norm", "conv");
}

TEST_F(AddForward, GivesTheShiftToTheOtherAddendWhereALayerTakesIt) {
  const auto before_padding = [](const std::string& sum) {
    Model model;
    model.layer("conv1", {3, 3, 1, 1}, 3).layer("conv", {3, 3, 3, 3}, 3).norm("norm", 3);
    model.forward(fmt::format("y = {}\nu = {}\nz = {}\nreturn {}", batch_norm("norm", "x"), conv("conv1", "torch.tanh(x)"), sum,
                              conv("conv", "z", 1)));
    return without_zero_scale(model);
  };
  for (const char* sum : {"y + u", "u + y", "y - u", "torch.add(u, y, alpha=2)", "torch.sub(y, u, alpha=3)"}) {
    expect_folded(before_padding(sum).module, {image}, "norm", "conv1, conv");
  }
  expect_stopped(before_padding("y + u * u").module, {image}, "norm", "forward", Reason::value_has_other_readers);
  Model model = before_padding("y + torch.sigmoid(u)");
  expect_stopped(with_shift_only(model).module, {image}, "norm", "forward", Reason::shift_at_padding);
}

TEST_F(AddForward, CountsTheShiftTwiceWhereTheNormIsAddedToItself) {
  Model model = before_conv("y + y");
  expect_folded(with_shift_only(model).module, {image}, "norm", "conv");
}

TEST_F(AddForward, DoesNoHarmToAnAddendThatTheSumIsWrittenInto) {
  Model model = before_conv("torch.sigmoid(u)\nw = z\nz = w.add_(y)", " + torch.tanh(w)");
  expect_unharmed(with_shift_only(model).module, {image});
}

}  // namespace
}  // namespace bnfold::test
