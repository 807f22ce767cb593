// Loads and saves TorchScript files with errors that a program can act on.
#pragma once

#include <torch/csrc/jit/api/module.h>

#include <optional>
#include <string>
#include <unordered_map>

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

// What torch.jit.save wrote beside a module as _extra_files, such as labels or a configuration: the content by name.
using ExtraFiles = std::unordered_map<std::string, std::string>;

// What is known of a file beside the module in it.
struct FileContent {
  ExtraFiles extra_files;
  std::string devices;  // those that its tensors were saved from: "cpu", "cuda:0", "cpu, cuda:0"
};

// Loads a module that torch.jit.save or Module::save wrote, onto `map_location` where it is given and to the stored devices otherwise.
// Compares every checksum of the file, which torch::jit::load does not. Fills `content` where it is given. Throws LoadError.
torch::jit::Module load(const std::string& path, std::optional<at::Device> map_location = std::nullopt,
                        FileContent* content = nullptr);

// Writes beside `path` and renames, so `path` holds the old file or the whole new one at every moment, also where the process is killed or
// the power fails. A link stays a link, and a file that is replaced passes on its permissions. Throws SaveError.
void save(const torch::jit::Module& module, const std::string& path, const ExtraFiles& extra_files = {});

}  // namespace bnfold
