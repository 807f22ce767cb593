#include "libraries.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "failure.h"

namespace fs = std::filesystem;

namespace {

// This LibTorch is FOLDER/libtorch_cpu.so, and in a wheel FOLDER is PACKAGES/torch/lib.
fs::path folder_of_libtorch() {
  Dl_info library = {};
  if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &library) == 0) return {};
  std::error_code error;
  return fs::weakly_canonical(library.dli_fname, error).parent_path();
}

bool is_loaded(const std::string& path) {
  // What is built for LibTorch needs this one too, which the program does not.
  dlopen((folder_of_libtorch() / "libtorch.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  return dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr;
}

}  // namespace

void load_library(const std::string& path) {
  // Without a slash, dlopen would look for it among the libraries of the system.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  if (!is_loaded(file)) throw Failure(kCannotLoad, fmt::format("--load-library {} can't be loaded: {}", path, dlerror()));
}

bool load_torchvision() {
  std::error_code error;
  const fs::path packages = folder_of_libtorch().parent_path().parent_path();
  for (const fs::directory_entry& file : fs::directory_iterator(packages / "torchvision", error)) {
    const std::string name = file.path().filename();
    if (name.rfind("_C", 0) == 0 && file.path().extension() == ".so" && is_loaded(file.path())) return true;
  }
  return false;
}
