// The pipeline for exported programs.
#include <fmt/format.h>

#include "bnfold/exported.h"
#include "drawing.h"
#include "exported/json.h"
#include "exported/read_graph.h"
#include "exported/write_graph.h"
#include "fold_graph.h"
#include "module/measure.h"
#include "module/plain_mode.h"
#include "report/listing.h"

namespace bnfold {

using exported::Json;

namespace {

void require_options_of_a_program(const Options& options) {
  if (!options.preserved_attributes.empty())
    throw Error("an exported program has one method; preserved_attributes is for modules");
  if (!options.input_ranks.empty()) throw Error("an exported program tells its ranks itself; input_ranks is for modules");
  if (!options.example_inputs.empty()) throw Error("an exported program tells its ranks itself; example_inputs are for modules");
}

exported::ProgramGraph read_again(const ExportedProgram& program) {
  return exported::read_graph(exported::parsed_program(program.json), program.tensors);
}

ExportedFoldResult folded(const ExportedProgram& program, const Options& options) {
  Json json = exported::parsed_program(program.json);
  const exported::ProgramGraph read = exported::read_graph(json, program.tensors);
  Report report;
  report.before = measure(read.program.module, read.program.methods);
  ParameterStore store(read.program);
  FoldSettings settings;
  settings.target = options.target;
  settings.fold_limit = options.fold_limit;
  settings.types_prove_ranks = true;
  fold_graph(read.graph(), settings, store, report);
  report.kept.insert(report.kept.end(), read.hidden.begin(), read.hidden.end());
  list_each_norm_once(report);
  exported::Tensors tensors = exported::write_graph(json, read, store, program.tensors);
  report.after = measure(exported::module_of(json.at("graph_module").at("signature"), tensors), read.program.methods);
  return {{json.dump(), std::move(tensors), program.archive}, std::move(report)};
}

}  // namespace

ExportedFoldResult fold(const ExportedProgram& program, const Options& options) {
  const PlainMode plain;
  require_options_of_a_program(options);
  return exported::reading([&] { return folded(program, options); });
}

std::string to_graphviz(const ExportedProgram& original, const ExportedFoldResult& result) {
  return exported::reading(
      [&] { return drawn(read_again(original).program, read_again(result.program).program, result.report); });
}

}  // namespace bnfold
