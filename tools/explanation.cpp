#include "explanation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>

namespace {

std::string way_of(const bnfold::Obstacle& obstacle) {
  const std::string past = obstacle.passed.empty() ? "" : fmt::format("past {}, ", fmt::join(obstacle.passed, ", "));
  const std::string where = obstacle.source.empty() ? "" : fmt::format(" ({})", obstacle.source);
  return fmt::format("    {}: {}stopped by {}{}\n      {}\n", obstacle.way, past, name(obstacle.reason), where, obstacle.detail);
}

}  // namespace

std::string explanation(const bnfold::Report& report) {
  std::string text = report.folded.empty() ? "" : "\nfolded\n";
  for (const bnfold::FoldedNorm& norm : report.folded) {
    text += fmt::format("  {}  {} into {}\n", norm.name, name(norm.direction), fmt::join(norm.into, ", "));
  }
  text += report.merged.empty() ? "" : "\nmerged\n";
  for (const bnfold::MergedConv& conv : report.merged) text += fmt::format("  {}  into {}\n", conv.name, conv.into);
  std::set<bnfold::Reason> reasons;
  text += report.kept.empty() ? "" : "\ntried\n";
  for (const bnfold::KeptNorm& norm : report.kept) {
    text += fmt::format("  {}\n", norm.name);
    for (const bnfold::Obstacle& obstacle : norm.obstacles) {
      text += way_of(obstacle);
      reasons.insert(obstacle.reason);
    }
  }
  text += reasons.empty() ? "" : "\nreasons\n";
  for (const bnfold::Reason reason : reasons) {
    text += fmt::format("  {}\n      {}\n      What to do: {}\n", name(reason), sentence(reason), advice(reason));
  }
  return text;
}
