// The report as JSON and as a table.
#include "bnfold/report.h"

#include <fmt/color.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace bnfold {

namespace {

using Json = nlohmann::ordered_json;

void put(Json& json, const char* when, const Size& size) {
  json[fmt::format("parameters_{}", when)] = size.parameters;
  json[fmt::format("buffers_{}", when)] = size.buffers;
  json[fmt::format("bytes_{}", when)] = size.bytes;
  json[fmt::format("nodes_{}", when)] = size.nodes;
}

Json records_of(const std::vector<FoldedNorm>& folded) {
  Json records = Json::array();
  for (const FoldedNorm& norm : folded) {
    records.push_back({{"name", norm.name}, {"direction", name(norm.direction)}, {"into", norm.into}});
  }
  return records;
}

Json obstacles_of(const KeptNorm& norm) {
  Json obstacles = Json::array();
  for (const Obstacle& obstacle : norm.obstacles) {
    obstacles.push_back({{"way", obstacle.way},
                         {"passed", obstacle.passed},
                         {"reason", name(obstacle.reason)},
                         {"detail", obstacle.detail},
                         {"source", obstacle.source}});
  }
  return obstacles;
}

// 134309962 -> "134,309,962"
std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  const int64_t first = number < 0 ? 1 : 0;
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > first; i -= 3) digits.insert(static_cast<size_t>(i), 1, ',');
  return digits;
}

std::string readable_size(int64_t bytes) {
  const auto size = static_cast<double>(bytes);
  return bytes < 1000000 ? fmt::format("{:.2f} kB", size / 1e3) : fmt::format("{:.2f} MB", size / 1e6);
}

std::string shortened(const std::string& text, size_t width) {
  return text.size() <= width ? text : text.substr(0, width - 3) + "...";
}

std::string size_line(const char* what, const std::string& before, const std::string& after, const std::string& difference) {
  return fmt::format("{:<12} {:>14}  ->  {:>14}{}{}\n", what, before, after, difference.empty() ? "" : "   ", difference);
}

std::string count_line(const char* what, int64_t before, int64_t after) {
  const std::string difference = fmt::format("{}{}", after > before ? "+" : "", grouped(after - before));
  return size_line(what, grouped(before), grouped(after), after == before ? "" : difference);
}

std::string directions(const std::vector<FoldedNorm>& folded) {
  std::map<Direction, int64_t> counts;
  for (const FoldedNorm& norm : folded) ++counts[norm.direction];
  std::string text;
  for (const auto& [direction, count] : counts) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, name(direction));
  }
  return text;
}

// Text in a style, or plain where the table has no colors.
class Painter {
 public:
  explicit Painter(bool colored) : colored_(colored) {}

  std::string operator()(const fmt::text_style& style, const std::string& text) const {
    return colored_ ? fmt::format(style, "{}", text) : text;
  }

 private:
  bool colored_;
};

std::string line_of(const Obstacle& obstacle) {
  const std::string where = obstacle.source.empty() ? "" : fmt::format(" ({})", obstacle.source);
  return fmt::format("{}: {}, {}{}", obstacle.way, name(obstacle.reason), obstacle.detail, where);
}

std::string kept_lines(const std::vector<KeptNorm>& kept, size_t width, const Painter& painted) {
  const auto detail_line = [&](const std::string& detail) {
    return fmt::format("      {}\n", painted(fmt::emphasis::faint, shortened(detail, width - 6)));
  };
  std::string lines = fmt::format("\n{}\n", painted(fmt::emphasis::bold, "kept"));
  for (const KeptNorm& norm : kept) {
    const std::string where = norm.source.empty() ? "" : fmt::format("  ({})", norm.source);
    const std::string reason = painted(fg(fmt::terminal_color::yellow), std::string(name(norm.reason)));
    lines += fmt::format("  {}  {}{}\n", painted(fmt::emphasis::bold, norm.name), reason, where);
    if (!norm.detail.empty()) lines += detail_line(norm.detail);
    for (const Obstacle& obstacle : norm.obstacles) {
      if (obstacle.way == "forward") lines += detail_line(line_of(obstacle));
    }
  }
  return lines;
}

}  // namespace

std::string Report::to_json() const {
  Json json;
  json["folded"] = records_of(folded);
  json["kept"] = Json::array();
  for (const KeptNorm& norm : kept) {
    json["kept"].push_back({{"name", norm.name},
                            {"reason", name(norm.reason)},
                            {"detail", norm.detail},
                            {"source", norm.source},
                            {"obstacles", obstacles_of(norm)}});
  }
  json["scales"] = records_of(scales);
  json["merged"] = Json::array();
  for (const MergedConv& conv : merged) json["merged"].push_back({{"name", conv.name}, {"into", conv.into}});
  json["table"] = to_table();
  put(json, "before", before);
  put(json, "after", after);
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string Report::to_table(int width, bool colored) const {
  const Painter painted(colored);
  const size_t norms = folded.size() + kept.size();
  const std::string ways = folded.empty() ? "" : "   " + directions(folded);
  const auto count_color = fg(kept.empty() ? fmt::terminal_color::green : fmt::terminal_color::yellow);
  const std::string count = painted(fmt::emphasis::bold | count_color, fmt::format("{:>14}", folded.size()));
  std::string table = fmt::format("{:<12} {}  of  {:>14}{}\n", "norms folded", count, norms, ways);
  if (!scales.empty()) table += fmt::format("{:<12} {:>13}\n", "scales folded", scales.size());
  if (!merged.empty())
    table += fmt::format("{:<12} {:>14}   convolutions into others of the same value\n", "merged", merged.size());
  table += count_line("parameters", before.parameters, after.parameters);
  table += count_line("buffers", before.buffers, after.buffers);
  table += size_line("size", readable_size(before.bytes), readable_size(after.bytes), "");
  table += count_line("graph nodes", before.nodes, after.nodes);
  if (!kept.empty()) table += kept_lines(kept, static_cast<size_t>(std::max(width, 40)), painted);
  return table;
}

}  // namespace bnfold
