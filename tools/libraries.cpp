#include "libraries.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "failure.h"

namespace fs = std::filesystem;

namespace {

bool is_loaded(const std::string& path) {
  return dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr;
}

// The folder of the Python packages of the LibTorch that runs: this is PACKAGES/torch/lib/libtorch_cpu.so.
fs::path packages() {
  Dl_info library = {};
  if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &library) == 0) return {};
  std::error_code error;
  return fs::weakly_canonical(library.dli_fname, error).parent_path().parent_path().parent_path();
}

}  // namespace

void load_library(const std::string& path) {
  // Without a slash, dlopen would look for it among the libraries of the system.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  if (!is_loaded(file)) throw Failure(kCannotLoad, fmt::format("--load-library {} can't be loaded: {}", path, dlerror()));
}

bool load_torchvision() {
  std::error_code error;
  for (const fs::directory_entry& file : fs::directory_iterator(packages() / "torchvision", error)) {
    const std::string name = file.path().filename();
    if (name.rfind("_C", 0) == 0 && file.path().extension() == ".so" && is_loaded(file.path())) return true;
  }
  return false;
}
