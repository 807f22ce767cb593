// TorchScript files, with errors that say what to do.
#include "bnfold/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <torch/csrc/jit/serialization/import.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "sentence.h"

namespace bnfold {

namespace jit = torch::jit;
namespace fs = std::filesystem;

namespace {

constexpr const char* kHowToSave = "save a ScriptModule with torch.jit.save(torch.jit.script(model.eval()), path)";

bool starts_like_a_zip(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  file.read(magic, sizeof magic);
  return file.gcount() == sizeof magic && std::memcmp(magic, "PK\3\4", sizeof magic) == 0;
}

void require_readable(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw LoadError(fmt::format("{}: there is no such file", path));
  if (fs::is_directory(path, error)) throw LoadError(fmt::format("{}: is a directory; give the path of a .pt file", path));
  if (access(path.c_str(), R_OK) != 0) throw LoadError(fmt::format("{}: no permission to read it", path));
  if (fs::file_size(path, error) == 0 && !error) throw LoadError(fmt::format("{}: the file is empty", path));
  if (!starts_like_a_zip(path)) {
    throw LoadError(fmt::format("{}: not a TorchScript file (no zip archive); {}", path, kHowToSave));
  }
}

// What torch said, as a sentence about the file.
std::string load_failure(const std::string& path, const std::string& what) {
  const auto says = [&what](const char* text) { return what.find(text) != std::string::npos; };
  if (says("constants.pkl") || says("file not found: ") || says("code/")) {
    return fmt::format("{}: a state_dict or pickled object, not a TorchScript module; {}", path, kHowToSave);
  }
  if (says("central directory") || says("invalid header") || says("PytorchStreamReader failed reading")) {
    return fmt::format("{}: the file is truncated or damaged; copy or save it again", path);
  }
  if (says("Unknown builtin op") || says("Unknown type name") || says("Unknown custom class")) {
    return fmt::format("{}: needs an operator or class that is not here: {}; load the library that has it first", path,
                       first_sentence(what));
  }
  return fmt::format("{}: can't be loaded: {}", path, first_sentence(what));
}

// A file beside `path` that is gone when this object is, unless it was renamed.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& path) : target_(path), name_(path + ".XXXXXX") {
    descriptor_ = mkstemp(name_.data());
    if (descriptor_ < 0) throw SaveError(fmt::format("{}: can't write beside it: {}", path, std::strerror(errno)));
    const mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor_, 0666 & ~mask);
  }

  ~TemporaryFile() {
    if (descriptor_ >= 0) close(descriptor_);
    if (!renamed_) std::remove(name_.c_str());
  }

  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(const std::string& content) {
    size_t written = 0;
    while (written < content.size()) {
      const ssize_t count = ::write(descriptor_, content.data() + written, content.size() - written);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) fail();
      written += static_cast<size_t>(count);
    }
    if (fsync(descriptor_) != 0) fail();
  }

  void rename() {
    if (std::rename(name_.c_str(), target_.c_str()) != 0) fail();
    renamed_ = true;
  }

 private:
  [[noreturn]] void fail() const { throw SaveError(fmt::format("{}: can't be written: {}", target_, std::strerror(errno))); }

  std::string target_;
  std::string name_;
  int descriptor_ = -1;
  bool renamed_ = false;
};

}  // namespace

jit::Module load(const std::string& path, bool onto_cpu) {
  require_readable(path);
  try {
    return onto_cpu ? jit::load(path, c10::kCPU) : jit::load(path);
  } catch (const c10::Error& error) {
    throw LoadError(load_failure(path, error.what_without_backtrace()));
  } catch (const std::exception& error) {
    throw LoadError(load_failure(path, error.what()));
  }
}

void save(const jit::Module& module, const std::string& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) throw SaveError(fmt::format("{}: is a directory; give the path of a file", path));
  // Renaming would put a file in the place of a device or pipe, and in that of a link.
  const bool exists = fs::exists(path, error);
  if (exists && !fs::is_regular_file(path, error)) throw SaveError(fmt::format("{}: is no regular file", path));
  const std::string target = exists ? fs::canonical(path).string() : path;
  std::ostringstream content;
  try {
    module.save(content);
  } catch (const c10::Error& failure) {
    throw SaveError(fmt::format("{}: the module can't be serialized: {}", path, failure.what_without_backtrace()));
  }
  TemporaryFile file(target);
  file.write(content.str());
  file.rename();
}

}  // namespace bnfold
