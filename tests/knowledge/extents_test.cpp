// Sizes that are known before the graph runs, behind a convolution of 4 channels.
#include "knowledge/extents.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "module/flatten.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

constexpr std::nullopt_t unknown = std::nullopt;

using Sizes = std::vector<std::optional<int64_t>>;

// `text` returns what is asked for: x is [N, 3, H, W], y is conv(x), [N, 4, H, W], and number is computed while the module runs.
class Flattened {
 public:
  explicit Flattened(const std::string& text, int64_t rank = 4)
      : program_(flatten(model(text).module, {})),
        store_(program_),
        ranks_(*program_.methods[0].graph, {rank}, [this](const torch::jit::Value* value) { return rank_of_weight(value); }),
        asked_(ranks_, program_.methods[0].graph->block()),
        extents_(store_, asked_) {}

  // What is returned, or the first part of it.
  const torch::jit::Value* value() const {
    const torch::jit::Value* output = program_.methods[0].graph->outputs()[0];
    return output->node()->kind() == torch::jit::prim::TupleConstruct ? output->node()->input(0) : output;
  }
  const Extents& extents() const { return extents_; }

  Sizes sizes(int64_t rank) const {
    Sizes sizes;
    for (int64_t dimension = 0; dimension < rank; ++dimension) sizes.push_back(extents_.of(value(), dimension));
    return sizes;
  }

 private:
  static Model model(const std::string& text) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).layer("up", {4, 3, 1, 1}).layer("linear", {7, 4});
    return model.forward(fmt::format("number = x.size(0)\nz = x[:, number - 2:]\ny = {}\n{}", conv("conv", "x"), text));
  }

  std::optional<int64_t> rank_of_weight(const torch::jit::Value* value) const {
    const auto tensor = store_.read(value);
    return tensor && tensor->defined() ? std::optional<int64_t>(tensor->dim()) : std::nullopt;
  }

  Program program_;
  ParameterStore store_;
  Ranks ranks_;
  AskedRanks asked_;
  Extents extents_;
};

struct Case {
  std::string expression;
  Sizes sizes;
};

std::ostream& operator<<(std::ostream& stream, const Case& one) {
  return stream << one.expression;
}

class ExtentsOf : public ::testing::TestWithParam<Case> {};

TEST_P(ExtentsOf, AreThose) {
  const auto& [expression, sizes] = GetParam();
  EXPECT_EQ(Flattened("return " + expression).sizes(static_cast<int64_t>(sizes.size())), sizes);
}

INSTANTIATE_TEST_SUITE_P(
    Values, ExtentsOf,
    ::testing::Values(Case{"x", {unknown, unknown, unknown, unknown}}, Case{"y", {unknown, 4, unknown, unknown}},
                      Case{"y.relu()", {unknown, 4, unknown, unknown}}, Case{"self.conv.bias", {4, unknown}},
                      Case{"torch.conv_transpose2d(y, self.up.weight, None, groups=2)", {unknown, 6, unknown, unknown}},
                      Case{"torch.conv2d(x, self.conv.weight / self.conv.weight.norm())", {unknown, 4, unknown, unknown}},
                      Case{"torch.conv2d(x, self.conv.weight / number)", {unknown, unknown, unknown, unknown}},
                      Case{"torch.linear(y.permute([0, 2, 3, 1]), self.linear.weight)", {unknown, unknown, unknown, 7}},
                      Case{"torch.mm(y.view(-1, 4), self.linear.weight.t())", {unknown, 7}},
                      Case{"torch.matmul(y.permute([0, 2, 3, 1]), self.linear.weight.t())", {unknown, unknown, unknown, 7}},
                      Case{"torch.matmul(self.linear.weight, x.view([2, 4, -1]))", {unknown, unknown, unknown}},
                      Case{"torch.bmm(y.flatten(2), x.view([number, -1, 5]))", {unknown, 4, 5}},
                      Case{"x.view([number, -1, 5])", {unknown, unknown, 5}},
                      Case{"self.linear.weight.expand([number, -1, 4])", {unknown, 7, 4}},
                      Case{"y.expand([number, -1, 2, 2])", {unknown, 4, 2, 2}},
                      Case{"torch.addmm(self.conv.bias, y.view(-1, 7), self.linear.weight)", {unknown, 4}},
                      Case{"torch.mm(self.linear.weight, x.view(4, -1))", {unknown, unknown}},
                      Case{"torch.max_pool2d(y, [2, 2])", {unknown, 4, unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Permuted, ExtentsOf,
                         ::testing::Values(Case{"y.permute([0, 2, 3, 1])", {unknown, unknown, unknown, 4}},
                                           Case{"y.permute([0, number, 2, 3])", {unknown, unknown, unknown, unknown}},
                                           Case{"y.transpose(1, 2)", {unknown, unknown, 4, unknown}},
                                           Case{"y.transpose(-3, -1)", {unknown, unknown, unknown, 4}},
                                           Case{"y.transpose(2, number)", {unknown, unknown, unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Joined, ExtentsOf,
                         ::testing::Values(Case{"y.flatten(2)", {unknown, 4, unknown}}, Case{"y.flatten(1)", {unknown, unknown}},
                                           Case{"y.flatten(-3)", {unknown, unknown}},
                                           Case{"y.flatten(number)", {unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Cut, ExtentsOf,
                         ::testing::Values(Case{"torch.constant_pad_nd(y, [1, 1])", {unknown, 4, unknown, unknown}},
                                           Case{"torch.constant_pad_nd(y, [0, 0, 0, 0, 0, 1])", {unknown, 5, unknown, unknown}},
                                           Case{"torch.constant_pad_nd(y, [number, 1])", {unknown, unknown, unknown, unknown}},
                                           Case{"y.narrow(2, 0, 1)", {unknown, 4, unknown, unknown}},
                                           Case{"y[:, 1:]", {unknown, 3, unknown, unknown}},
                                           Case{"y[:, -3:-1]", {unknown, 2, unknown, unknown}},
                                           Case{"y[:, number:]", {unknown, unknown, unknown, unknown}},
                                           Case{"y[:, ::2]", {unknown, unknown, unknown, unknown}},
                                           Case{"y[:, :, 0]", {unknown, 4, unknown}}, Case{"y[0]", {4, unknown, unknown}},
                                           Case{"y.select(number, 0)", {unknown, unknown, unknown}},
                                           Case{"y.narrow(-3, 0, 1)", {unknown, 1, unknown, unknown}},
                                           Case{"y.narrow(number, 0, 1)", {unknown, unknown, unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Reduced, ExtentsOf,
                         ::testing::Values(Case{"torch.adaptive_avg_pool2d(y, [2, 5])", {unknown, 4, 2, 5}},
                                           Case{"torch.adaptive_avg_pool2d(y, [number, 5])", {unknown, 4, unknown, unknown}},
                                           Case{"y.mean([2, -1], True)", {unknown, 4, 1, 1}},
                                           Case{"y.sum([1], True)", {unknown, 1, unknown, unknown}},
                                           Case{"y.mean([3])", {unknown, unknown, unknown}},
                                           Case{"y.mean([0], number > 1)", {unknown, unknown, unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Concatenated, ExtentsOf,
                         ::testing::Values(Case{"torch.cat([y, y], 1)", {unknown, 8, unknown, unknown}},
                                           Case{"torch.cat([z, y], 1)", {unknown, unknown, unknown, unknown}},
                                           Case{"torch.cat([z, y], -2)", {unknown, 4, unknown, unknown}},
                                           Case{"torch.cat([y, y], number)", {unknown, unknown, unknown, unknown}},
                                           Case{"torch.cat(y.split(2, 2), 2)", {unknown, unknown, unknown, unknown}}));

INSTANTIATE_TEST_SUITE_P(Broadcast, ExtentsOf,
                         ::testing::Values(Case{"z + y", {unknown, 4, unknown, unknown}},
                                           Case{"x * x", {unknown, unknown, unknown, unknown}},
                                           // 1 may become whatever the other has
                                           Case{"y.mean([1], True) + z", {unknown, unknown, unknown, unknown}}));

TEST(Extents, OfOneChannelThatTensorsClampAreNotOne) {
  EXPECT_EQ(Flattened("return torch.clamp(y, min=0.5)").sizes(2), (Sizes{unknown, 4}));
  for (const char* bounds : {"min=y", "max=y", "y, y"}) {
    EXPECT_NE(Flattened(fmt::format("return torch.clamp(y.mean([1], True), {})", bounds)).sizes(2)[1], 1) << bounds;
  }
}

TEST(Extents, OfAValueWithoutABatchAreNotThoseOfOneWith) {
  EXPECT_EQ(Flattened("return y").sizes(4), (Sizes{unknown, 4, unknown, unknown}));
  EXPECT_EQ(Flattened("return y", 3).sizes(3), (Sizes{unknown, unknown, unknown}));
}

TEST(Extents, OfAReductionCountedFromTheBackNeedTheRank) {
  EXPECT_EQ(Flattened("return torch.conv2d(x, self.conv.weight).view(x.size()[number:]).mean([-1], True)").sizes(4),
            (Sizes{unknown, unknown, unknown, unknown}));
  EXPECT_EQ(Flattened("return torch.cat([y, y], 1).sum([-1], True)").sizes(4), (Sizes{unknown, 8, unknown, 1}));
  EXPECT_EQ(Flattened("return y.mean([], True)").sizes(4), (Sizes{1, 1, 1, 1}));
}

TEST(Extents, AreThoseThatALayerBehindNeeds) {
  EXPECT_EQ(Flattened("return z.abs()").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("u = z.abs()\nv = torch.conv2d(u.relu(), self.conv.weight)\nreturn u").sizes(2), (Sizes{unknown, unknown}))
      << "what nobody reads does not run";
  EXPECT_EQ(Flattened("u = z.abs()\nv = torch.conv2d(u.relu(), self.conv.weight)\nreturn u, v").sizes(2), (Sizes{unknown, 3}));
  EXPECT_EQ(Flattened("u = z.abs()\nv = torch.conv_transpose2d(u, self.up.weight)\nreturn u, v").sizes(2), (Sizes{unknown, 4}));
  EXPECT_EQ(Flattened("u = z.abs()\nv = torch.linear(u.relu(), self.linear.weight)\nreturn u, v").sizes(4),
            (Sizes{unknown, unknown, unknown, 4}));
  EXPECT_EQ(Flattened("u = z.abs()\nv = u\nif number > 1:\n  v = torch.conv2d(u, self.conv.weight)\nreturn u, v").sizes(2),
            (Sizes{unknown, unknown}));
}

TEST(Extents, OfThePiecesOfAChunkOrSplit) {
  EXPECT_EQ(Flattened("a, b, c = torch.chunk(torch.cat([y, y], 1), 3, 1)\nreturn a").sizes(2), (Sizes{unknown, 3}));
  EXPECT_EQ(Flattened("a, b, c = torch.chunk(torch.cat([y, y], 1), 3, 1)\nreturn c").sizes(2), (Sizes{unknown, 2}));
  EXPECT_EQ(Flattened("a, b = torch.split(y, 3, 1)\nreturn b").sizes(2), (Sizes{unknown, 1}));
  EXPECT_EQ(Flattened("a, b = torch.split(y, [3, 1], 1)\nreturn a").sizes(2), (Sizes{unknown, 3}));
  EXPECT_EQ(Flattened("a, b = torch.split(y, [number, 1], 1)\nreturn a").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("a, b = torch.chunk(y, 2, 2)\nreturn a").sizes(4), (Sizes{unknown, 4, unknown, unknown}));
  EXPECT_EQ(Flattened("a, b = torch.chunk(y, number, 1)\nreturn a").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("a, b = torch.chunk(y, 2, number)\nreturn a").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("a, b = y.split(number, 1)\nreturn a").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("a, b = y.split(3, 1)\nreturn b").sizes(2), (Sizes{unknown, 1}));
  EXPECT_EQ(Flattened("a, b = y.split([1, 3], 1)\nreturn b").sizes(2), (Sizes{unknown, 3}));
  EXPECT_EQ(Flattened("a, b = y.split([1, number], 1)\nreturn b").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("return y.chunk(2, 1)[-1]").sizes(2), (Sizes{unknown, 2}));
  EXPECT_EQ(Flattened("return y.chunk(2, 1)[number]").sizes(2), (Sizes{unknown, unknown}));
  EXPECT_EQ(Flattened("return torch.cat([y, y, y], 1).chunk(5, 1)[4]").sizes(4), (Sizes{unknown, unknown, unknown, unknown}));
}

TEST(Extents, FitAnAffineOfTheirRankAndSize) {
  const auto affine = [](at::IntArrayRef sizes) {
    return algebra::Affine{at::ones(sizes, at::kDouble), at::zeros(sizes, at::kDouble)};
  };
  const Flattened flattened("return y");
  EXPECT_TRUE(flattened.extents().fit(flattened.value(), affine({1, 4, 1, 1})));
  EXPECT_TRUE(flattened.extents().fit(flattened.value(), affine({1, 1, 1, 1})));
  EXPECT_FALSE(flattened.extents().fit(flattened.value(), affine({1, 3, 1, 1})));
  EXPECT_FALSE(flattened.extents().fit(flattened.value(), affine({1, 4, 1})));
  EXPECT_FALSE(flattened.extents().fit(flattened.value(), affine({1, 4, 5, 1})));
}

}  // namespace
}  // namespace bnfold::test
