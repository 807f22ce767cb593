#include "report/listing.h"

#include <algorithm>
#include <set>
#include <utility>

namespace bnfold {

void list_each_norm_once(Report& report) {
  std::set<std::string> kept;
  std::set<std::pair<std::string, std::vector<std::string>>> listed;
  for (const KeptNorm& norm : report.kept) kept.insert(norm.name);
  const auto repeats = [&](const FoldedNorm& norm) {
    return kept.count(norm.name) != 0 || !listed.emplace(norm.name, norm.into).second;
  };
  report.folded.erase(std::remove_if(report.folded.begin(), report.folded.end(), repeats), report.folded.end());
}

}  // namespace bnfold
