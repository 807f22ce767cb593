// The options of a fold, from JSON and as they are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "bnfold/bnfold.h"
#include "support/model.h"

namespace bnfold::test {

namespace {

std::string error_of(const std::string& text) {
  try {
    options_from_json(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string error_of_ranks(const std::vector<std::optional<int64_t>>& input_ranks) {
  Model model;
  model.forward("return x");
  Options options;
  options.input_ranks = input_ranks;
  try {
    fold(model.module, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Options, NamesTheTargetsWhereOneIsUnknown) {
  const std::string all = "the targets are libtorch, onnxruntime, openvino, ncnn, coreml, quantization";
  EXPECT_EQ(error_of(R"({"target": "tensorrt"})"), "there is no target \"tensorrt\"; " + all);
  EXPECT_EQ(error_of(R"({"target": 1})"), "there is no target 1; " + all);
}

TEST(Options, FromJson) {
  const Options options = options_from_json(
      R"({"preserved_attributes": ["encode"], "input_ranks": [4, null], "target": "openvino", "fold_limit": 3})");
  EXPECT_EQ(options.target, Target::openvino);
  EXPECT_EQ(options.fold_limit, 3);
  EXPECT_EQ(options.preserved_attributes, std::vector<std::string>{"encode"});
  EXPECT_EQ(options.input_ranks, (std::vector<std::optional<int64_t>>{4, std::nullopt}));
}

TEST(Options, FromJsonRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(error_of(R"({"direction": 1})"),
            "there is no option 'direction'; the options are preserved_attributes, input_ranks, target and fold_limit");
  EXPECT_EQ(error_of("[]"), "the options must be a JSON object");
  EXPECT_THAT(error_of("{"), testing::StartsWith("the options are no JSON"));
}

TEST(Options, FromJsonRefusesRanksThatAreNone) {
  for (const char* ranks : {"4", R"({"x": 4})", R"(["four"])", "[4.5]", "[true]", "[1e30]"}) {
    EXPECT_THAT(error_of(std::string(R"({"input_ranks": )") + ranks + "}"), testing::StartsWith("input_ranks must be")) << ranks;
  }
}

TEST(Options, FromJsonRefusesNamesThatAreNone) {
  for (const char* names : {"3", R"("encode")", R"({"encode": "forward"})", "[3]", "null"}) {
    EXPECT_EQ(error_of(std::string(R"({"preserved_attributes": )") + names + "}"), "preserved_attributes must be a list of names")
        << names;
  }
}

TEST(Options, FromJsonRefusesALimitThatIsNone) {
  for (const char* limit : {"-1", "1.5", "null", R"("3")", "[3]", "true", "1e30"}) {
    EXPECT_EQ(error_of(std::string(R"({"fold_limit": )") + limit + "}"), "fold_limit must be a whole number, 0 or more") << limit;
  }
}

TEST(Options, TheLimitIsOnAllMethodsTogether) {
  Model model;
  model.layer("conv1", {4, 3, 1, 1}, 4).norm("norm1", 4).layer("conv2", {4, 3, 1, 1}, 4).norm("norm2", 4);
  model.forward("return " + batch_norm("norm1", conv("conv1", "x")));
  model.define("def other(self, x):\n  return " + batch_norm("norm2", conv("conv2", "x")) + "\n");
  for (const int64_t limit : {0, 1, 2, 3}) {
    Options options;
    options.fold_limit = limit;
    const FoldResult result = fold(model.module, options);
    EXPECT_EQ(result.report.folded.size(), std::min<size_t>(limit, 2));
    EXPECT_TRUE(result.report.kept.empty());
  }
}

TEST(Options, TakesNoRankThatATensorCantHave) {
  EXPECT_EQ(error_of_ranks({}), "");
  EXPECT_EQ(error_of_ranks({64, 0, std::nullopt}), "");
  EXPECT_EQ(error_of_ranks({-1}), "input_ranks has -1, and a rank is from 0 to 64");
  EXPECT_EQ(error_of_ranks({65}), "input_ranks has 65, and a rank is from 0 to 64");
}

}  // namespace
}  // namespace bnfold::test
