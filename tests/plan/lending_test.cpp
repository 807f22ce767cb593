// A value that others read too gets a shift, and they take it off again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

const char* const kWay = "shift backward, scale forward, other readers rescaled";

class Lending : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // u = stem(x); u + conv2(relu(conv1(relu(norm(u)))))
  static Model pre_activation(const std::string& result = "s", const std::string& activation = "torch.relu") {
    Model model = layers();
    return model.forward(fmt::format("u = {}\ny = {}({})\ns = u + {}\nreturn {}", conv("stem", "x", 1), activation,
                                     batch_norm("norm", "u"), conv("conv2", "torch.relu(" + conv("conv1", "y", 1) + ")", 1),
                                     result));
  }

  // u = stem(x); u + conv2(conv1(norm(u))), where no activation makes a constant of a channel of scale 0
  static Model without_activation() {
    Model model = layers();
    return model.forward(fmt::format("u = {}\ny = {}\nreturn {} + u", conv("stem", "x", 1), batch_norm("norm", "u"),
                                     conv("conv2", "torch.tanh(" + conv("conv1", "y", 1) + ")", 1)));
  }

  static Model layers() {
    Model model;
    model.layer("stem", {5, 3, 3, 3}, 5).layer("conv1", {5, 5, 3, 3}, 5).layer("conv2", {5, 5, 3, 3}, 5).norm("norm", 5);
    model.layer("conv3", {5, 5, 1, 1}, 5).norm("norm2", 5);
    return model;
  }

  // The shift divided by the scale is `deviations` standard deviations.
  static Model with_shift_of(double deviations, Model model = pre_activation()) {
    tensor_of(model, "weight").fill_(0.5);
    tensor_of(model, "running_mean").zero_();
    tensor_of(model, "running_var").fill_(1 - 1e-5);
    tensor_of(model, "bias").fill_(0.5 * deviations);
    return model;
  }

  static Model without_zero_scale(Model model) {
    tensor_of(model, "weight").select(0, 4).fill_(-0.7);
    return model;
  }

  const at::Tensor x = at::randn({2, 3, 6, 5}, at::kDouble);
};

TEST_F(Lending, FoldsAPreActivationBlockWithZeroPadding) {
  const Model model = pre_activation();
  for (const std::vector<int64_t>& sizes : std::vector<std::vector<int64_t>>{{2, 3, 6, 5}, {1, 3, 4, 4}, {3, 3, 1, 1}}) {
    const FoldResult result = expect_folded(model.module, {at::randn(sizes, at::kDouble)}, "norm", "stem, conv2, conv1");
    EXPECT_EQ(result.report.folded[0].direction, Direction::forward);
  }
}

TEST_F(Lending, CutsAtZero) {
  const FoldResult result = fold(pre_activation().module);
  for (const auto& buffer : result.module.named_buffers()) {
    const at::Tensor finite = buffer.value.masked_select(buffer.value.isfinite());
    EXPECT_LE(finite.ne(0).sum().item<int64_t>(), 1) << buffer.name;  // that of the channel of scale 0
  }
}

TEST_F(Lending, FoldsABlockWithoutAnActivation) {
  expect_folded(without_zero_scale(without_activation()).module, {x}, "norm", "stem, conv2, conv1");
}

TEST_F(Lending, DeclinesAConstantChannelThatPaddingSurrounds) {
  expect_stopped(without_activation().module, {x}, "norm", "forward", Reason::shift_at_padding);
}

TEST_F(Lending, TakesAChannelThatIsZero) {
  const Model model = without_activation();
  tensor_of(model, "bias").select(0, 4).zero_();
  expect_folded(model.module, {x}, "norm", "stem, conv2, conv1");
}

TEST_F(Lending, FoldsAChainOfBlocks) {
  const auto block = [](const std::string& norm, const std::string& first, const std::string& second) {
    return conv(second, fmt::format("torch.relu({})", conv(first, fmt::format("torch.relu({})", batch_norm(norm, "u")), 1)), 1);
  };
  for (const char* sum : {"u = u + v", "u = v + u", "u = torch.sub(u, v, alpha=-2)"}) {
    Model chain = layers();
    chain.layer("conv4", {5, 5, 3, 3}, 5).layer("conv5", {5, 5, 3, 3}, 5);
    chain.forward(fmt::format("u = {}\nv = {}\n{}\nv = {}\n{}\nreturn u", conv("stem", "x", 1), block("norm", "conv1", "conv2"),
                              sum, block("norm2", "conv4", "conv5"), sum));
    expect_folded(chain.module, {x}, "norm", "stem, conv2, conv1");
    expect_folded(chain.module, {x}, "norm2", "conv5, conv2, conv4");
  }
}

TEST_F(Lending, GivesTheShiftBackToALayer) {
  expect_folded(pre_activation(conv("conv3", "u") + " + torch.sigmoid(s)").module, {x}, "norm", "conv3, stem, conv2, conv1");
}

TEST_F(Lending, GoesOnBehindASumOfWhatTakesNoShift) {
  Model model = layers();
  model.forward(fmt::format("u = {}\ny = torch.sigmoid({})\nreturn {}", conv("stem", "x", 1),
                            conv("conv1", "torch.relu(" + batch_norm("norm", "u") + ")", 1), conv("conv3", "u + y")));
  expect_folded(model.module, {x}, "norm", "stem, conv1, conv3");
}

TEST_F(Lending, GivesTheShiftBackToAnotherNormOfTheValue) {
  Model model = layers();
  model.forward(fmt::format("u = {}\nv = {}\nreturn torch.sigmoid(v) + {}", conv("stem", "x", 1),
                            conv("conv1", "torch.relu(" + batch_norm("norm", "u") + ")", 1),
                            conv("conv2", "torch.relu(" + batch_norm("norm2", "u") + ")", 1)));
  expect_folded(model.module, {x}, "norm", "norm2, stem, conv1");
}

TEST_F(Lending, DeclinesAReaderThatTakesNoShift) {
  expect_stopped(pre_activation("s * torch.sigmoid(u)").module, {x}, "norm", kWay, Reason::operator_not_affine);
}

TEST_F(Lending, DeclinesAnActivationBeforeTheNormThatWouldBecomeABound) {
  Model model = layers();
  model.forward(fmt::format("u = {}\nv = {}\nreturn {} + v", conv("stem", "x", 1), conv("conv3", "torch.relu(u)"),
                            conv("conv1", "torch.relu(" + batch_norm("norm", "u") + ")", 1)));
  expect_stopped(model.module, {x}, "norm", kWay, Reason::scale_not_positive);
}

TEST_F(Lending, DeclinesAValueThatIsReturned) {
  expect_stopped(pre_activation("s, u").module, {x}, "norm", kWay, Reason::value_in_container);
}

TEST_F(Lending, DeclinesAValueThatNoLayerMakes) {
  Model model = layers();
  model.forward(fmt::format("u = torch.sigmoid({})\nreturn u + {}", conv("stem", "x", 1),
                            conv("conv1", "torch.relu(" + batch_norm("norm", "u") + ")", 1)));
  expect_stopped(model.module, {x}, "norm", kWay, Reason::operator_not_affine);
}

// The statistics are those of what the pooling makes, and what others read is what it reads.
TEST_F(Lending, LendsNoShiftToAValueBehindTheNormsInput) {
  const auto with = [](const std::string& other) {
    Model block = layers();
    return block.forward(fmt::format("z = {}\nu = torch.max_pool2d(z, [3, 3], [1, 1], [1, 1])\nreturn {} + {}",
                                     conv("stem", "x", 1), other,
                                     conv("conv1", "torch.relu(" + batch_norm("norm", "u") + ")", 1)));
  };
  expect_folded(with("u").module, {x}, "norm", "conv1, stem");
  expect_stopped(with("z").module, {x}, "norm", "shift backward, scale forward", Reason::value_has_other_readers);
}

TEST_F(Lending, DeclinesAShiftThatIsLargeBesideTheValue) {
  expect_folded(with_shift_of(7.9).module, {x}, "norm", "stem, conv2, conv1");
  expect_folded(with_shift_of(-7.9).module, {x}, "norm", "stem, conv2, conv1");
  expect_stopped(with_shift_of(8.1).module, {x}, "norm", kWay, Reason::scale_not_invertible, "8 standard deviations");
  expect_stopped(with_shift_of(-8.1).module, {x}, "norm", kWay, Reason::scale_not_invertible, "8 standard deviations");
}

TEST_F(Lending, TakesAShiftAsLargeAsTheMean) {
  Model model = with_shift_of(0);
  tensor_of(model, "running_mean").fill_(100);
  expect_folded(model.module, {x}, "norm", "stem, conv2, conv1");
  tensor_of(model, "weight").select(0, 1).fill_(1e-3);
  tensor_of(model, "bias").select(0, 1).fill_(-1);  // 1000 deviations beside a mean of 100
  expect_stopped(model.module, {x}, "norm", kWay, Reason::scale_not_invertible, "8 standard deviations");
}

TEST_F(Lending, TakesOneDeviationInNarrowDtypes) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    for (const double deviations : {0.9, 1.1}) {
      Model model = with_shift_of(deviations);
      model.module.to(dtype);
      EXPECT_EQ(fold(model.module).report.kept.empty(), deviations < 1) << toString(dtype);
    }
  }
}

TEST_F(Lending, LeavesLittleRoundingErrorInTheValue) {
  Model model = with_shift_of(7.9);
  model.module.to(at::kFloat);
  const FoldResult result = expect_folded(model.module, {x}, "norm", "stem, conv2, conv1");
  expect_same_output_in_own_dtype(model.module, result.module, {x.to(at::kFloat)}, 2e-6);
}

TEST_F(Lending, DeclinesANormWithoutStatistics) {
  Model model = layers();
  model.buffer("frozen.scale", random_scale(5).view({1, 5, 1, 1})).buffer("frozen.shift", at::randn({1, 5, 1, 1}, at::kDouble));
  model.forward(fmt::format("u = {}\ny = u * self.frozen.scale + self.frozen.shift\nreturn u + {}", conv("stem", "x", 1),
                            conv("conv1", "torch.relu(y)", 1)));
  expect_stopped(model.module, {x}, "frozen", "shift backward, scale forward", Reason::value_has_other_readers);
}

// The first norm goes into the second one, whose statistics are then those of what it reads now.
TEST_F(Lending, KnowsHowFarTheInputSpreadsBehindANormThatWentIn) {
  const at::Tensor input = at::randn({2, 5, 6, 5}, at::kDouble);
  for (const double scale : {1e-3, -2.0, 1e3}) {
    for (const double deviations : {7.9, -7.9, 8.1, -8.1}) {
      Model model = with_shift_of(deviations, layers());
      const torch::jit::Module first = model.module.attr("norm2").toModule();
      first.attr("weight").toTensor().fill_(scale);
      model.parameter("added", at::randn({5, 1, 1}, at::kDouble));
      model.forward(fmt::format("u = {}\nreturn {}", batch_norm("norm2", "x + self.added"),
                                conv("conv3", "u + " + conv("conv1", batch_norm("norm", "u"), 1))));
      const FoldResult result = expect_unharmed(model.module, {input});
      EXPECT_EQ(result.report.kept.empty(), std::abs(deviations) < 8) << scale << ", " << deviations;
    }
  }
}

}  // namespace
}  // namespace bnfold::test
