// Writes a TorchScript file.
#include <fmt/format.h>
#include <torch/csrc/jit/serialization/export.h>

#include "bnfold/files.h"
#include "files/file_errors.h"
#include "files/replacement.h"

namespace bnfold {

namespace jit = torch::jit;

void save(const jit::Module& module, const std::string& path, const ExtraFiles& extra_files) {
  Replacement file(path);
  try {
    jit::ExportModule(
        module, [&file](const void* data, size_t size) { return file.write(data, size); }, extra_files);
  } catch (const c10::Error& error) {
    fail<SaveError>(path, fmt::format("the module can't be serialized: {}", detail(error.what_without_backtrace())));
  } catch (const std::exception& error) {
    fail<SaveError>(path, fmt::format("the module can't be serialized: {}", detail(error.what())));
  }
  file.take_place();
}

}  // namespace bnfold
