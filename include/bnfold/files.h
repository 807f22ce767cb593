// Loads and saves TorchScript files with errors that a program can act on.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <string>

#include "bnfold/bnfold.h"

namespace bnfold {

// The file is missing, unreadable, or not a TorchScript module.
class LoadError : public Error {
 public:
  using Error::Error;
};

// The file could not be written; what was at the path before is untouched.
class SaveError : public Error {
 public:
  using Error::Error;
};

// Loads a module that torch.jit.save or Module::save wrote, onto the CPU where `onto_cpu` is set and to the stored devices otherwise.
// Compares every checksum of the file, which torch::jit::load does not. Throws LoadError.
torch::jit::Module load(const std::string& path, bool onto_cpu = false);

// Writes beside `path` and renames, so `path` holds the old file or the whole new one at every moment, also where the process is killed or
// the power fails. A link stays a link, and a file that is replaced passes on its permissions. Throws SaveError.
void save(const torch::jit::Module& module, const std::string& path);

}  // namespace bnfold
