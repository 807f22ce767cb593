// Folds what torch.export exported: programs, and the .pt2 files that torch.export.save writes.
//
//     bnfold::ExportedProgram program = bnfold::load_exported("model.pt2");
//     bnfold::ExportedFoldResult result = bnfold::fold(program);
//     std::cout << result.report.to_table();
//     bnfold::save(result.program, "folded.pt2");
#pragma once

#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <unordered_map>

#include "bnfold/bnfold.h"
#include "bnfold/files.h"

namespace bnfold {

class ExportedArchive;

// A program as torch.export writes it.
struct ExportedProgram {
  std::string json;                                     // its graph and its signature, models/model.json of a .pt2 file
  std::unordered_map<std::string, at::Tensor> tensors;  // parameters, buffers and constants by their dotted names
  std::shared_ptr<const ExportedArchive> archive;       // the file that it was loaded from, null where it comes from memory
};

struct ExportedFoldResult {
  ExportedProgram program;
  Report report;
};

// Folds every batch norm of `program` that can be folded exactly, as fold does for a ScriptModule, by the same planner and rules.
//
// `program` stays as it was. The result has its signature, its dynamic shapes and their constraints; nodes that a fold does not touch are
// the nodes that they were, what is new has the metadata of what it replaces, and tensors that did not change are those of `program`. It has
// just the parameters and buffers that are still read. Regions of torch.no_grad() become part of the graph; what is no ATen operator, as
// cond or an autocast region, stays as it is. A tensor that is missing in `tensors` is not known before the program runs.
//
// Throws Error: the program was written in another version of the format, or is none; the options name attributes or ranks, which a program
// has not.
ExportedFoldResult fold(const ExportedProgram& program, const Options& options = {});

// Whether the file at `path` is one that torch.export.save wrote. Throws LoadError where it is one and damaged, or can't be read; what is
// another archive, or none, is no error.
bool is_exported_file(const std::string& path);

// Compares every checksum of the file. Throws LoadError.
ExportedProgram load_exported(const std::string& path);

// Writes a program that was loaded from a file, with all that was in the file beside it, at once and whole as the save of a module does.
// Throws SaveError, and Error where the program comes from memory.
void save(const ExportedProgram& program, const std::string& path);

// The fold as a picture, text for Graphviz as of a module.
std::string to_graphviz(const ExportedProgram& original, const ExportedFoldResult& result);

}  // namespace bnfold
