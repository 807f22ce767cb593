// Convolutions that become steps of oneDNN.
#include "fuse/conv.h"

#include <fmt/format.h>

#include "bnfold/check.h"
#include "support/fused.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// The kinds of the steps, and how often each stands in forward.
int64_t steps(const jit::Module& module) {
  return count_nodes(module, "mkldnn::_convolution_pointwise") + count_nodes(module, "mkldnn::_convolution_pointwise_");
}

class FusedConv : public FusedLayers {
 protected:
  // conv [6, 4, 3, 3], point [6, 4, 1, 1] and again [6, 6, 3, 3], all with a bias and keeping the size.
  static Model model(const std::string& statements) {
    Model model;
    model.layer("conv", {6, 4, 3, 3}, 6).layer("point", {6, 4, 1, 1}, 6).layer("again", {6, 6, 3, 3}, 6);
    model.forward(statements);
    model.module.to(at::kFloat);
    return model;
  }

  static std::string c(const std::string& value = "x") { return conv("conv", value, 1); }
  static std::string p(const std::string& value = "x") { return conv("point", value); }
  static std::string a(const std::string& value) { return conv("again", value, 1); }

  OptimizeResult optimized(const Model& model) const { return optimized(model, {x}); }

  // Optimized for the inputs, and compared with the original on them and on others, three times, in memory and from a file.
  static OptimizeResult optimized(const Model& model, const Inputs& inputs) {
    const OptimizeResult result = optimize_for_inference(model.module, inputs);
    for (const jit::Module& module : with_reloaded(result.module)) {
      expect_same(model.module, module, inputs);
      expect_same(model.module, module, {at::randn({1, 4, 12, 5})});
    }
    return result;
  }

  static void expect_same(jit::Module expected, jit::Module actual, const Inputs& inputs) {
    const at::NoGradGuard no_grad;
    for (int run = 0; run < 3; ++run) {
      const at::Tensor one = expected.forward(copied(inputs)).toTensor();
      const at::Tensor other = actual.forward(copied(inputs)).toTensor();
      expect_near(one, other);
      EXPECT_EQ(one.is_contiguous(), other.is_contiguous());
    }
  }

  static Inputs copied(const Inputs& inputs) {
    Inputs copies;
    for (const c10::IValue& input : inputs) copies.push_back(input.deepcopy());
    return copies;
  }

  OptimizeResult optimized_of(const std::string& statements) const override { return optimized(model(statements)); }

  const at::Tensor x = at::randn({2, 4, 9, 8});
};

TEST_F(FusedConv, TakesTheActivation) {
  const std::vector<std::pair<std::string, std::string>> activations = {
      {"torch.relu", "relu"}, {"torch.relu_", "relu"},  {"torch.sigmoid", "sigmoid"},     {"torch.tanh", "tanh"},
      {"torch.silu", "silu"}, {"torch.relu6", "relu6"}, {"torch.hardswish", "hardswish"}, {"torch.hardsigmoid", "hardsigmoid"}};
  for (const auto& [function, step] : activations) {
    expect_steps(fmt::format("return {}({})", function, c()), {"conv: conv2d, " + step});
  }
  expect_steps("return torch.hardtanh(" + c() + ", -0.5, 0.25)", {"conv: conv2d, hardtanh"});
  expect_steps("return torch.clamp(" + c() + ", -0.5, 0.25)", {"conv: conv2d, clamp"});
  expect_steps("return torch.leaky_relu(" + c() + ", 0.2)", {"conv: conv2d, leaky_relu"});
  expect_steps("return torch.gelu(" + c() + ")", {"conv: conv2d, gelu"});
  expect_steps("return torch.gelu(" + c() + ", approximate=\"tanh\")", {"conv: conv2d, gelu"});
}

TEST_F(FusedConv, LeavesAnActivationWithABoundThatIsComputedOrMissing) {
  expect_steps("return torch.clamp(" + c() + ", float(x.size(0)) * -0.1, 0.5)", {"conv: conv2d"});
  expect_steps("return torch.clamp(" + c() + ", 0.1)", {"conv: conv2d"});
}

TEST_F(FusedConv, LeavesBoundsInTheOtherOrder) {
  expect_steps("return torch.clamp(" + c() + ", 0.5, -0.2)", {"conv: conv2d"});
  expect_steps("return torch.clamp(" + c() + ", 0.5, 0.5)", {"conv: conv2d, clamp"});
}

TEST(Activation, IsNoneOfAnotherNamespace) {
  jit::Graph graph;
  jit::Value* x = graph.addInput();
  EXPECT_TRUE(activation_of(graph.create(c10::Symbol::fromQualString("aten::relu"), {x})));
  EXPECT_FALSE(activation_of(graph.create(c10::Symbol::fromQualString("custom::relu"), {x})));
}

TEST_F(FusedConv, LeavesAnActivationWhoseInputIsReadTwice) {
  expect_left("y = " + c() + "\nreturn torch.relu(y) + y.mean()", "relu", FusionObstacle::value_has_other_readers);
}

TEST_F(FusedConv, TakesTheSumAndTheReluBehindIt) {
  const std::string u = "u = torch.sigmoid(x).repeat(1, 2, 1, 1)[:, :6]\n";
  expect_steps(u + "return torch.relu(" + c() + " + u)", {"conv: conv2d, add, relu"});
  expect_steps(u + "return torch.relu(u + " + c() + ")", {"conv: conv2d, add, relu"});
  expect_steps(u + "return u.add(" + c() + ")", {"conv: conv2d, add"});
  expect_steps(u + "y = " + c() + "\ny += u\nreturn torch.relu_(y)", {"conv: conv2d, add, relu"});
}

TEST_F(FusedConv, TakesOneOfTwoConvolutionsIntoTheOther) {
  const OptimizeResult result = optimized(model("u = " + c("torch.tanh(x)") + "\nreturn torch.relu(u + " + p() + ")"));
  EXPECT_EQ(steps(result.module), 2);
  EXPECT_EQ(count_nodes(result.module, "aten::add"), 0);
  EXPECT_TRUE(result.unfused.empty());
}

TEST_F(FusedConv, LeavesAFactorAndAnotherActivationBehindASum) {
  const std::string u = "u = torch.sigmoid(x).repeat(1, 2, 1, 1)[:, :6]\n";
  expect_left(u + "return torch.add(" + c() + ", u, alpha=2)", "add", FusionObstacle::operand_unsupported);
  expect_left(u + "return torch.silu(" + c() + " + u)", "silu", FusionObstacle::operand_unsupported);
}

TEST_F(FusedConv, LeavesAnAddendThatIsBroadcast) {
  expect_left("return " + c() + " + x.mean([2, 3], True).repeat(1, 2, 1, 1)[:, :6]", "add", FusionObstacle::sizes_unknown);
  expect_left("return " + c() + " + 1.5 * torch.ones(6, 1, 1)", "add", FusionObstacle::sizes_unknown);
}

TEST_F(FusedConv, LeavesAnAddendThatMightBeBroadcastForOtherInputs) {
  const Model gated = model("return " + c() + " + " + p("x.mean([2, 3], True)"));
  const at::Tensor pixel = at::randn({2, 4, 1, 1});
  const OptimizeResult result = optimized(gated, {pixel});
  EXPECT_EQ(count_nodes(result.module, "aten::add") + count_nodes(result.module, "aten::add_"), 1);
}

TEST_F(FusedConv, TakesSumsWithoutExampleInputs) {
  const Model sum = model("u = " + c("torch.tanh(x)") + "\nreturn torch.relu(torch.relu(u) + " + p() + ")");
  const OptimizeResult result = optimize_for_inference(sum.module);
  expect_same(sum.module, result.module, {x});
  EXPECT_EQ(steps(result.module), 2);
  EXPECT_TRUE(result.unfused.empty());
}

TEST_F(FusedConv, LeavesAnAddendOfAnotherInputThatHasItsSizeInTheExample) {
  Model two;
  two.layer("conv", {6, 4, 3, 3}, 6).define("def forward(self, x, p):\n  return torch.relu(" + c() + " + p)\n");
  two.module.to(at::kFloat);
  const at::Tensor p = at::randn({2, 6, 9, 8});
  const OptimizeResult result = optimize_for_inference(two.module, {x, p});
  expect_left(result, "add", FusionObstacle::sizes_unknown);
  for (const Inputs& inputs : {Inputs{x, p}, Inputs{x, p.slice(0, 0, 1)}, Inputs{x.slice(0, 0, 1), p}}) {
    expect_same(two.module, result.module, inputs);
  }
}

TEST_F(FusedConv, LeavesAnAddendThatIsOneAlongTheBatchInTheExample) {
  const Model gated = model("y = " + c() + "\nreturn " + c("torch.tanh(x)") + " + torch.tanh(y.mean(0, True))");
  const at::Tensor large = at::randn({2, 4, 72, 72});
  const OptimizeResult result = optimize_for_inference(gated.module, {large.slice(0, 0, 1)});
  expect_left(result, "add", FusionObstacle::sizes_unknown);
  expect_same(gated.module, result.module, {large});
}

TEST_F(FusedConv, LeavesAnAddendOfAnotherDtype) {
  const Model mixed = model("u = " + c("torch.tanh(x)") + ".double()\nreturn (" + c() + " + u).float()");
  const OptimizeResult result = optimize_for_inference(mixed.module, {x});
  expect_left(result, "add", FusionObstacle::sizes_unknown);
  expect_same(mixed.module, result.module, {x});
}

TEST_F(FusedConv, LeavesAReluBehindAWriteIntoTheAddend) {
  const std::string sum = "q = torch.sigmoid(x).repeat(1, 2, 1, 1)[:, :6] * 2\nr = q[:, :6]\nt = " + c() + " + r\n";
  expect_left(sum + "r.mul_(0.0)\nreturn torch.relu(t) + q", "relu", FusionObstacle::value_changed_in_place);
  expect_steps(sum + "y = torch.relu(t)\nr.mul_(0.0)\nreturn y + r", {"conv: conv2d, add, relu"});
}

TEST_F(FusedConv, RaisesForAnImageWithoutABatchWhereNoExampleHadOne) {
  const Model plain = model("return torch.relu(" + c() + ")");
  jit::Module fused = optimize_for_inference(plain.module).module;
  expect_same(plain.module, fused, {x});
  try {
    fused.forward({x[0]});
    FAIL() << "it runs";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("optimized for values of rank 4"), std::string::npos);
  }
}

TEST_F(FusedConv, ChecksTheRankWhereTheStepRunsAlone) {
  const Model either = model("if x.dim() == 4:\n  y = " + c() + "\nelse:\n  y = x * 2\nreturn y");
  jit::Module fused = optimize_for_inference(either.module).module;
  EXPECT_EQ(steps(fused), 1);
  expect_same(either.module, fused, {x});
  expect_same(either.module, fused, {x[0]});
}

TEST_F(FusedConv, TakesTheArgumentsThatTheExampleLeavesOut) {
  Model masked;
  masked.layer("conv", {6, 4, 3, 3}, 6);
  masked.define("def forward(self, x, mask: Optional[Tensor]=None, times: float=2.0):\n  y = torch.relu(" + c() +
                ")\n  if mask is not None:\n    y = y * mask\n  return y * times\n");
  masked.module.to(at::kFloat);
  expect_fused(optimized(masked), {"conv: conv2d, relu"});
}

TEST_F(FusedConv, OverwritesAnAddendThatNobodyReadsLater) {
  const Model residual = model("u = torch.relu(" + c() + ")\nreturn torch.relu(" + a("torch.relu(" + a("u") + ")") + " + u)");
  EXPECT_EQ(count_nodes(optimized(residual).module, "mkldnn::_convolution_pointwise_"), 1);
}

TEST_F(FusedConv, KeepsAnAddendThatOthersReadLater) {
  const std::string convolution = "torch.conv2d(u, self.again.weight, None, [1, 1], [1, 1])";
  for (const std::string& end :
       {std::string("return y + torch.sigmoid(u)"), "return y * " + convolution, std::string("return y + u.mean()")}) {
    const Model residual =
        model("u = torch.relu(" + c() + ")\ny = torch.relu(" + a("torch.relu(" + a("u") + ")") + " + u)\n" + end);
    EXPECT_EQ(count_nodes(optimized(residual).module, "mkldnn::_convolution_pointwise_"), 0) << end;
  }
}

TEST_F(FusedConv, KeepsAnAddendThatALoopReadsInEachRound) {
  const auto summed = [](const std::string& outside, const std::string& inside) {
    return outside + "y = torch.sigmoid(x).mean()\nfor i in range(x.size(0) + 1):\n" + inside + "  y = y + torch.relu(" +
           c("x + i") + " + u)\nreturn y";
  };
  const std::string u = "u = torch.relu(" + p() + ")\n";
  EXPECT_EQ(count_nodes(optimized(model(summed(u, ""))).module, "mkldnn::_convolution_pointwise_"), 0);
  EXPECT_EQ(count_nodes(optimized(model(summed("", "  " + u))).module, "mkldnn::_convolution_pointwise_"), 1);
}

TEST_F(FusedConv, KeepsAnAddendThatAConvolutionReadsWhoseStepStandsLater) {
  // The second reader of u is written before the sum, and is added to what comes behind it.
  const Model residual = model("u = torch.relu(" + c() + ")\nz = " + a("u") + "\ny = torch.relu(" + a("torch.tanh(u)") +
                               " + u)\nreturn z + torch.tanh(y)");
  EXPECT_EQ(count_nodes(optimized(residual).module, "mkldnn::_convolution_pointwise_"), 0);
}

TEST_F(FusedConv, NeverOverwritesAnInputOrAConstant) {
  Model residual = model("return torch.relu(" + a("x") + " + x)");
  const at::Tensor six = at::randn({2, 6, 9, 8});
  const at::Tensor before = six.clone();
  jit::Module fused = optimize_for_inference(residual.module, {six}).module;
  for (int run = 0; run < 3; ++run) fused.forward({six});
  EXPECT_TRUE(six.equal(before));
}

TEST_F(FusedConv, LeavesAConvolutionWhoseInputOrOutputIsWritten) {
  expect_left("y = torch.sigmoid(x)\nz = y[:, :1]\nw = " + c("y") + "\nz.mul_(2)\nreturn torch.relu(w) + y.mean()", "conv2d",
              FusionObstacle::value_changed_in_place);
  expect_left("w = " + c() + "\nw[:, 0] = 0.5\nreturn w", "conv2d", FusionObstacle::value_changed_in_place);
}

TEST_F(FusedConv, TakesAConvolutionOfASumThatOverwroteARearrangedValue) {
  const std::string sum = "y = torch.softmax(x, 1).permute([0, 1, 3, 2])\ny = y.add_(torch.sigmoid(x).transpose(2, 3))\n";
  expect_steps(sum + "return torch.relu(" + c("y") + ")", {"conv: conv2d, relu"});
}

TEST_F(FusedConv, TakesAConvolutionOfASumThatOverwroteASlice) {
  const std::string sum = "t = torch.tanh(x)\ny = torch.cat([t, t * 2], 1)[:, 1:5]\ny += t\n";
  expect_steps(sum + "return torch.relu(" + c("y") + ")", {"conv: conv2d, relu"});
}

TEST_F(FusedConv, LeavesAConvolutionOfASumThatOverwroteASliceOfWhatOthersRead) {
  const std::string sum = "z = torch.cat([torch.tanh(x), torch.sigmoid(x)], 1)\ny = z[:, 1:5]\ny += x\n";
  expect_left(sum + "return " + c("y") + " + z.mean()", "conv2d", FusionObstacle::value_changed_in_place);
}

TEST_F(FusedConv, TakesAConvolutionBehindAGateThatWorksInPlace) {
  const std::string gate = "gate = x.mean([2, 3], True) * 2\ngate = gate.add_(3.0).clamp_(0.0, 6.0).div_(6.0)\n";
  expect_steps(gate + "return torch.relu(" + c("x * gate") + ")", {"conv: conv2d, relu"});
}

TEST_F(FusedConv, LeavesAConvolutionOfASumThatOverwroteWhatOthersRead) {
  const std::string sum = "z = torch.softmax(x, 1)\ny = z.permute([0, 1, 3, 2])\ny = y.add_(torch.sigmoid(x).transpose(2, 3))\n";
  expect_left(sum + "return " + c("y") + " + z.mean()", "conv2d", FusionObstacle::value_changed_in_place);
}

TEST_F(FusedConv, KeepsAWriteIntoWhatNoStepMade) {
  Model written;
  written.layer("conv", {6, 4, 3, 3}, 6).layer("again", {6, 6, 3, 3}, 6).norm("norm", 6);
  written.forward("y = torch.softmax(" + conv("conv", "x", 1) + ", -1)\ny[:, 0] = 0.5\nreturn " + conv("again", "y", 1));
  written.module.to(at::kFloat);
  optimized(written, {x});
}

TEST_F(FusedConv, LeavesWeightsThatAreComputed) {
  expect_left("return torch.relu(torch.conv2d(x, self.conv.weight * x.mean(), self.conv.bias))", "conv2d",
              FusionObstacle::weight_not_static);
}

TEST_F(FusedConv, LeavesOtherDtypesAndDimensions) {
  Model wide = model("return torch.relu(" + c() + ")");
  wide.module.to(at::kDouble);
  const OptimizeResult result = optimize_for_inference(wide.module, {x.to(at::kDouble)});
  expect_left(result, "conv2d", FusionObstacle::weight_unsupported);

  Model line;
  line.layer("conv", {6, 4, 3}, 6).forward("return torch.relu(torch.conv1d(x, self.conv.weight, self.conv.bias))");
  line.module.to(at::kFloat);
  const OptimizeResult of_line = optimize_for_inference(line.module, {at::randn({2, 4, 9})});
  expect_left(of_line, "conv1d", FusionObstacle::layer_unsupported);
}

TEST_F(FusedConv, LeavesAnImageWithoutABatch) {
  const OptimizeResult result = optimize_for_inference(model("return torch.relu(" + c() + ")").module, {x[0]});
  expect_left(result, "conv2d", FusionObstacle::input_not_batched);
}

TEST_F(FusedConv, TakesGroupsStridesAndDilation) {
  Model grouped;
  grouped.layer("conv", {8, 2, 3, 3}, 8);
  grouped.forward("return torch.relu(torch.conv2d(x, self.conv.weight, self.conv.bias, [2, 1], [1, 2], [1, 2], 2))");
  grouped.module.to(at::kFloat);
  EXPECT_EQ(steps(optimized(grouped, {x}).module), 1);
}

TEST_F(FusedConv, TakesNoBiasAndPaddingByName) {
  Model plain = model("return torch.relu(torch.conv2d(x, self.conv.weight, None, [1, 1], 'same'))");
  EXPECT_EQ(steps(optimized(plain).module), 1);
}

TEST_F(FusedConv, TakesThePadding) {
  for (const char* pad : {"torch.pad(x, [2, 2, 1, 1])", "torch.pad(x, [2, 2, 1, 1], \"constant\", 0.0)",
                          "torch.constant_pad_nd(x, [1, 1], 0)", "torch.constant_pad_nd(x, [1, 1, 0, 0, 0, 0], 0)"}) {
    expect_steps(fmt::format("return torch.relu({})", c(pad)),
                 {fmt::format("conv: {}, conv2d, relu", std::string(pad).find("constant_pad") == 6 ? "constant_pad_nd" : "pad")});
  }
  const OptimizeResult result = optimize_for_inference(model("return " + c("torch.pad(x, [2, 2, 1, 1])")).module);
  EXPECT_EQ(count_nodes(result.module, "aten::pad"), 0);
}

TEST_F(FusedConv, LeavesPaddingThatIsUnevenElsewhereOrNegative) {
  for (const char* amounts : {"[2, 1, 1, 1]", "[1, 1, 0, 1]", "[-1, -1]", "[1, 1, 1, 1, 0, 0, 1, 1]", "[1, 1, 1, 1, 1, -1]"}) {
    expect_left("return " + c(fmt::format("torch.pad(x, {})", amounts)), "pad", FusionObstacle::operand_unsupported);
  }
  expect_left("return " + c("torch.pad(x, [x.dim(), x.dim()])"), "pad", FusionObstacle::operand_unsupported);
}

TEST_F(FusedConv, LeavesPaddingThatIsNotZero) {
  for (const char* mode : {"\"constant\", 1.0", "\"reflect\"", "\"constant\", float(x.size(0)) * 0.0"}) {
    expect_steps("return " + c(fmt::format("torch.pad(x, [2, 2, 1, 1], {})", mode)), {"conv: conv2d"});
  }
}

TEST_F(FusedConv, LeavesPaddingThatOthersReadOrWhoseInputIsWritten) {
  expect_left("u = torch.pad(x, [1, 1])\nreturn " + c("u") + " * u.mean()", "pad", FusionObstacle::value_has_other_readers);
  expect_left(
      "v = torch.sigmoid(x)\nz = v[:, :1]\nu = torch.pad(v, [1, 1])\nz.mul_(2)\nreturn torch.relu(" + c("u") + ") + v.mean()",
      "pad", FusionObstacle::value_changed_in_place);
}

TEST_F(FusedConv, FoldsFirst) {
  Model normed;
  normed.layer("conv", {6, 4, 3, 3}, 6).norm("norm", 6);
  normed.forward("return torch.relu(" + batch_norm("norm", conv("conv", "x", 1)) + ")");
  normed.module.to(at::kFloat);
  const OptimizeResult result = optimized(normed, {x});
  EXPECT_EQ(result.report.folded.size(), 1U);
  ASSERT_EQ(result.fused.size(), 1U);
  EXPECT_EQ(result.fused[0].steps, "conv2d, relu");
}

TEST_F(FusedConv, LeavesTheModuleThatCameInAlone) {
  const Model original = model("return torch.relu(" + c() + ")");
  const std::string graph = original.module.get_method("forward").graph()->toString();
  const auto names = state_names(original.module);
  optimize_for_inference(original.module, {x});
  EXPECT_EQ(original.module.get_method("forward").graph()->toString(), graph);
  EXPECT_EQ(state_names(original.module), names);
}

TEST_F(FusedConv, StartsWithTheBuffersThatCameIn) {
  Model counting;
  counting.layer("conv", {6, 4, 3, 3}, 6).buffer("count", at::zeros({1}));
  counting.forward("self.count.add_(1)\nreturn torch.relu(" + conv("conv", "x", 1) + ") + self.count");
  counting.module.to(at::kFloat);
  jit::Module fused = optimize_for_inference(counting.module, {x}).module;
  EXPECT_EQ(counting.module.attr("count").toTensor().item<double>(), 0);
  expect_same(counting.module, fused, {x});
}

TEST_F(FusedConv, RefusesInputsThatTheModuleDoesNotTake) {
  EXPECT_THROW(optimize_for_inference(model("return " + c()).module, {at::randn({2, 3, 9, 8})}), InputError);
}

// ---- the order in memory of what comes behind

TEST_F(FusedConv, GivesAViewTheOrderThatItAsksFor) {
  for (const char* end :
       {"return y.view(y.size(0), -1)", "return y.reshape(y.size(0), -1)", "return y.flatten(2).transpose(1, 2).contiguous()",
        "return y.permute([0, 2, 3, 1]).contiguous().view(-1, 6)", "z = [y, y * 2]\nreturn z[0].view(-1) + z[1].view(-1)",
        "if bool(y.sum() > 1e9):\n  y = y * 2\nreturn y.view(-1)", "return y.flatten(2).view(y.size(0), 2, 3, -1)",
        "return torch.max_pool2d(y, [2, 2]).view(y.size(0), -1)", "return torch.as_strided(y, [6], [1])"}) {
    const OptimizeResult result = optimized(model("y = torch.relu(" + c() + ")\n" + end));
    EXPECT_EQ(steps(result.module), 1) << end;
  }
}

TEST_F(FusedConv, GivesAnOperatorForVolumesTheOrderThatItAsksFor) {
  const OptimizeResult result = optimized(model("return torch.max_pool3d(torch.relu(" + c() + "), [2, 2, 2], [2, 2, 2])"));
  EXPECT_EQ(steps(result.module), 1);
  EXPECT_EQ(count_nodes(result.module, "aten::contiguous"), 1);
  const OptimizeResult images = optimized(model("return torch.max_pool2d(torch.relu(" + c() + "), [2, 2], [2, 2])"));
  EXPECT_EQ(count_nodes(images.module, "aten::contiguous"), 1);  // of the output
}

TEST_F(FusedConv, MakesNoContiguousCopyForAnotherStep) {
  const std::string y = "y = torch.relu(" + c() + ").contiguous()\n";
  EXPECT_EQ(count_nodes(optimized(model(y + "return torch.max_pool2d(" + a("y") + ", [2, 2])")).module, "aten::contiguous"), 1);
  optimized(model(y + "return y.view(-1)"));
}

}  // namespace
}  // namespace bnfold::test
