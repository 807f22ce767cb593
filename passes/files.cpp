// TorchScript files, with errors that say what to do.
#include "bnfold/files.h"

#include <caffe2/serialize/crc_alt.h>
#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <new>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <system_error>

#include "zip_checksums.h"

namespace bnfold {

namespace jit = torch::jit;
namespace fs = std::filesystem;

namespace {

constexpr const char* kHowToSave = "save a ScriptModule with torch.jit.save(torch.jit.script(model.eval()), path)";
constexpr const char* kDamaged = "the file is truncated or damaged; copy or save it again";
constexpr const char* kNoMemory = "there is not enough memory for it, or the file is damaged";
constexpr size_t kLongestDetail = 300;

// One line of UTF-8: a damaged file has its bytes quoted in what torch says, and a path may have any but zero.
std::string printable(const std::string& text) {
  using nlohmann::json;
  auto line = json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace)).get<std::string>();
  std::replace_if(
      line.begin(), line.end(), [](unsigned char one) { return std::iscntrl(one) != 0; }, ' ');
  return line;
}

template <typename Failure>
[[noreturn]] void fail(const std::string& path, const std::string& sentence) {
  throw Failure(printable(fmt::format("{}: {}", path, sentence)));
}

// What torch said, without the place in the module's source.
std::string detail(std::string what) {
  what.erase(0, std::min(what.find_first_not_of("\n "), what.size()));
  for (const char* place : {"\n:\n", "\n  File ", "\nSerialized "}) what = what.substr(0, what.find(place));
  what.erase(std::min(what.find_last_not_of(":. \n") + 1, kLongestDetail));
  return what;
}

bool starts_like_a_zip(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  file.read(magic, sizeof magic);
  return file.gcount() == sizeof magic && std::memcmp(magic, "PK\3\4", sizeof magic) == 0;
}

void require_readable(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail<LoadError>(path, "no path has a zero byte");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) fail<LoadError>(path, "there is no such file");
  if (error) fail<LoadError>(path, error.message());
  if (fs::is_directory(status)) fail<LoadError>(path, "is a directory; give the path of a .pt file");
  if (!fs::is_regular_file(status)) fail<LoadError>(path, "is no regular file, which loading takes");
  if (faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) fail<LoadError>(path, "no permission to read it");
  if (fs::file_size(path, error) == 0 && !error) fail<LoadError>(path, "the file is empty");
  if (!starts_like_a_zip(path)) fail<LoadError>(path, fmt::format("not a TorchScript file (no zip archive); {}", kHowToSave));
}

// What an archive that is no TorchScript module is.
const char* kind_of(caffe2::serialize::PyTorchStreamReader& archive) {
  if (archive.hasRecord("archive_format") || archive.hasRecord("serialized_exported_program.json"))
    return "a torch.export program";
  if (archive.hasRecord(".data/extern_modules")) return "a torch.package archive";
  return "a state_dict or pickled object";
}

// The content of a record, zeros where it can't be decompressed: left over memory could be what it was.
template <typename Archive>
auto content_of(Archive& archive, const std::string& record, int) -> decltype(archive.getRecordSize(record), std::string()) {
  std::string content(archive.getRecordSize(record), '\0');
  archive.getRecord(record, content.data(), content.size());
  return content;
}

// For a LibTorch without getRecordSize.
template <typename Archive>
std::string content_of(Archive& archive, const std::string& record, long) {
  const auto [content, size] = archive.getRecord(record);
  return {static_cast<const char*>(content.get()), size};
}

// torch does not compare checksums, nor mind a record that can't be decompressed: numbers and code that changed on the way would be
// taken for what was saved, and debug records that did can crash it.
void require_undamaged(const std::string& path, caffe2::serialize::PyTorchStreamReader& archive) try {
  std::ifstream file(path, std::ios::binary);
  const auto checksums = zip_checksums(file);
  for (const std::string& record : archive.getAllRecords()) {
    const std::string content = content_of(archive, record, 0);
    if (crc32_fast(content.data(), content.size()) != checksums.at(record)) fail<LoadError>(path, kDamaged);
  }
} catch (const std::out_of_range&) {
  fail<LoadError>(path, kDamaged);
}

void require_torchscript(const std::string& path) {
  try {
    caffe2::serialize::PyTorchStreamReader archive(path);
    if (!archive.hasRecord("constants.pkl")) {
      fail<LoadError>(path, fmt::format("{}, not a TorchScript module; {}", kind_of(archive), kHowToSave));
    }
    require_undamaged(path, archive);
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    const auto says = [&what](const char* text) { return what.find(text) != std::string::npos; };
    if (says("maximum supported version"))
      fail<LoadError>(path, "a newer PyTorch wrote it, in a format that this one can't read");
    const bool other_archive = says("not in a subdirectory") || says("hasRecord(\"version\")");
    if (other_archive) fail<LoadError>(path, fmt::format("not a TorchScript file (another zip archive); {}", kHowToSave));
    fail<LoadError>(path, kDamaged);
  }
}

// What torch said, as a sentence about the file.
std::string load_failure(const std::string& what) {
  const auto says = [&what](std::initializer_list<const char*> texts) {
    return std::any_of(texts.begin(), texts.end(), [&](const char* text) { return what.find(text) != std::string::npos; });
  };
  if (says({"Unknown builtin op", "Unknown type name '__torch__.torch.classes.", "Unknown custom class"})) {
    const std::string reason = detail(what);
    return fmt::format("needs an operator or class that is not here: {}; load the library that has it first",
                       detail(reason.substr(0, reason.find('\n'))));
  }
  if (says({"PytorchStreamReader failed", "INTERNAL ASSERT FAILED", "Unknown type name"})) return kDamaged;
  if (says({"not enough memory", "can't allocate memory"})) return kNoMemory;
  return fmt::format("can't be loaded, it is damaged or a newer PyTorch wrote it: {}", detail(what));
}

// Takes the place of a file at once and whole, or is gone. Where the file system can, it has no name before, so that nothing is left of
// it where the process is killed.
class Replacement {
 public:
  explicit Replacement(const fs::path& target)
      : target_(target), directory_(target.has_parent_path() ? target.parent_path() : "."), name_(directory_ / unused_name()) {
    constexpr int kFlags = O_WRONLY | O_CLOEXEC;
    if (fs::exists("/proc/self/fd")) descriptor_ = open(directory_.c_str(), kFlags | O_TMPFILE, 0666);
    if (descriptor_ >= 0) return;
    descriptor_ = open(name_.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
    if (descriptor_ < 0) fail<SaveError>(target_, fmt::format("can't write beside it: {}", std::strerror(errno)));
    named_ = true;
  }

  ~Replacement() {
    close(descriptor_);
    if (named_) unlink(name_.c_str());
  }

  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  // Never reports less than `size`: the writer of torch would throw once more in its destructor. The first failure is thrown by take_place.
  size_t write(const void* data, size_t size) {
    size_t written = 0;
    while (error_ == 0 && written < size) {
      const ssize_t count = ::write(descriptor_, static_cast<const char*>(data) + written, size - written);
      if (count >= 0) written += static_cast<size_t>(count);
      if (count < 0 && errno != EINTR) error_ = errno;
    }
    return size;
  }

  void take_place() {
    struct stat replaced = {};
    if (stat(target_.c_str(), &replaced) == 0) fchmod(descriptor_, replaced.st_mode & 0777);
    if (error_ != 0) fail_with(error_);
    if (fsync(descriptor_) != 0) fail_with(errno);
    if (!named_) give_name();
    if (std::rename(name_.c_str(), target_.c_str()) != 0) fail_with(errno);
    named_ = false;
    flush_directory();
  }

 private:
  static std::string unused_name() {
    std::random_device random;
    return fmt::format(".bnfold-{:08x}{:08x}", random(), random());
  }

  void give_name() {
    const std::string open_file = fmt::format("/proc/self/fd/{}", descriptor_);
    if (linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name_.c_str(), AT_SYMLINK_FOLLOW) != 0) fail_with(errno);
    named_ = true;
  }

  // So that the new name outlives a power failure too. Some file systems can't; the file is whole all the same.
  void flush_directory() const {
    const int directory = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) return;
    fsync(directory);
    close(directory);
  }

  [[noreturn]] void fail_with(int error) const {
    fail<SaveError>(target_, fmt::format("can't be written: {}", std::strerror(error)));
  }

  fs::path target_;
  fs::path directory_;
  fs::path name_;
  int descriptor_ = -1;
  int error_ = 0;  // the first errno of write
  bool named_ = false;
};

// Where to write: what a link points to. Renaming would put a file in the place of a device, a pipe or a link.
fs::path target_of(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail<SaveError>(path, "no path has a zero byte");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) fail<SaveError>(path, "is a directory; give the path of a file");
  if (fs::is_symlink(fs::symlink_status(path, error)) && !fs::exists(status)) fail<SaveError>(path, "is a link to nothing");
  if (!fs::exists(status)) return path;
  if (!fs::is_regular_file(status)) fail<SaveError>(path, "is no regular file");
  return fs::canonical(path);
}

}  // namespace

jit::Module load(const std::string& path, bool onto_cpu) {
  require_readable(path);
  try {
    require_torchscript(path);
    return onto_cpu ? jit::load(path, c10::kCPU) : jit::load(path);
  } catch (const LoadError&) {
    throw;
  } catch (const c10::Error& error) {
    fail<LoadError>(path, load_failure(error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    fail<LoadError>(path, kNoMemory);
  } catch (const std::exception& error) {
    fail<LoadError>(path, load_failure(error.what()));
  }
}

void save(const jit::Module& module, const std::string& path) {
  Replacement file(target_of(path));
  try {
    jit::ExportModule(module, [&file](const void* data, size_t size) { return file.write(data, size); });
  } catch (const c10::Error& error) {
    fail<SaveError>(path, fmt::format("the module can't be serialized: {}", detail(error.what_without_backtrace())));
  } catch (const std::exception& error) {
    fail<SaveError>(path, fmt::format("the module can't be serialized: {}", detail(error.what())));
  }
  file.take_place();
}

}  // namespace bnfold
