#include "bnfold/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "bnfold/bnfold.h"

namespace bnfold::test {
namespace {

Report example() {
  Report report;
  report.folded = {{"bn1", Direction::backward, {"conv1"}}, {"bn2", Direction::backward, {"conv2"}}};
  const Obstacle back{"backward", {"flatten"}, Reason::value_has_other_readers, "also read by aten::add", "net.py:12"};
  const Obstacle ahead{"forward", {}, Reason::value_is_output, "the normalized value is an output", "net.py:14"};
  report.kept = {{"bn3", back.reason, back.detail, back.source, {back, ahead}}};
  report.before = {134309962, 8462, 537273696, 58};
  report.after = {134301514, 0, 537206056, 45};
  return report;
}

TEST(Report, AsJson) {
  const auto json = nlohmann::json::parse(example().to_json());
  EXPECT_EQ(json["folded"][1]["name"], "bn2");
  EXPECT_EQ(json["folded"][1]["direction"], "backward");
  EXPECT_EQ(json["folded"][1]["into"], nlohmann::json::array({"conv2"}));
  EXPECT_EQ(json["kept"][0]["reason"], "value_has_other_readers");
  EXPECT_EQ(json["kept"][0]["source"], "net.py:12");
  EXPECT_EQ(json["parameters_before"], 134309962);
  EXPECT_EQ(json["nodes_after"], 45);
}

TEST(Report, AsJsonReplacesWhatIsNoUtf8) {
  Report report = example();
  report.folded[0].name = "\xff";
  EXPECT_NO_THROW(nlohmann::json::parse(report.to_json()));
}

TEST(Report, AsTable) {
  EXPECT_EQ(example().to_table(),
            "norms folded              2  of               3   2 backward\n"
            "parameters      134,309,962  ->     134,301,514   -8,448\n"
            "buffers               8,462  ->               0   -8,462\n"
            "size              537.27 MB  ->       537.21 MB\n"
            "graph nodes              58  ->              45   -13\n"
            "\nkept\n"
            "  bn3  value_has_other_readers  (net.py:12)\n"
            "      also read by aten::add\n"
            "      forward: value_is_output, the normalized value is an output (net.py:14)\n");
}

TEST(Report, AsTableInColors) {
  const std::string table = example().to_table(100, /*colored=*/true);
  EXPECT_NE(table.find("\x1b[33m             2\x1b[0m  of"), std::string::npos);
  EXPECT_NE(table.find("\x1b[33mvalue_has_other_readers\x1b[0m"), std::string::npos);
  const std::regex escapes("\x1b\\[[0-9]+m");
  EXPECT_EQ(std::regex_replace(table, escapes, ""), example().to_table());
}

TEST(Reasons, EachHasANameOfItsOwnAndASentence) {
  std::set<std::string_view> names;
  for (const Reason reason : all_reasons()) {
    EXPECT_TRUE(names.insert(name(reason)).second) << name(reason);
    EXPECT_EQ(sentence(reason).back(), '.');
    EXPECT_EQ(advice(reason).back(), '.');
  }
}

}  // namespace
}  // namespace bnfold::test
