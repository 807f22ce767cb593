// Reads a TorchScript file that is whole, and says of every other one what it is.
#include <ATen/Context.h>
#include <caffe2/serialize/crc_alt.h>
#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/serialization/import.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <new>
#include <set>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "bnfold/files.h"
#include "files/file_errors.h"
#include "files/zip_checksums.h"

namespace bnfold {

namespace jit = torch::jit;
namespace fs = std::filesystem;

namespace {

constexpr const char* kHowToSave = "save a ScriptModule with torch.jit.save(torch.jit.script(model.eval()), path)";
constexpr const char* kDamaged = "the file is truncated or damaged; copy or save it again";
const std::string kExtra = "extra/";
constexpr const char* kNoMemory = "there is not enough memory for it, or the file is damaged";

bool starts_like_a_zip(std::istream& file) {
  std::array<char, 4> magic = {};
  file.read(magic.data(), magic.size());
  return file && magic == std::array<char, 4>{'P', 'K', 3, 4};
}

// The file is opened once, for all that reads it: by its path, another one may have taken its place between two steps.
std::ifstream opened(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail<LoadError>(path, "no path has a zero byte");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) fail<LoadError>(path, "there is no such file");
  if (error) fail<LoadError>(path, error.message());
  if (fs::is_directory(status)) fail<LoadError>(path, "is a directory; give the path of a .pt file");
  if (!fs::is_regular_file(status)) fail<LoadError>(path, "is no regular file, which loading takes");
  if (faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) fail<LoadError>(path, "no permission to read it");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<LoadError>(path, "can't be opened");
  if (file.peek() == std::ifstream::traits_type::eof()) fail<LoadError>(path, "the file is empty");
  if (!starts_like_a_zip(file)) fail<LoadError>(path, fmt::format("not a TorchScript file (no zip archive); {}", kHowToSave));
  return file;
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

// The devices in a pickle of tensors, which names each as a string: 'X', the length in four bytes, "cuda:0". Good for a sentence: a string
// that the module holds for itself may be among them.
void add_devices(const std::string& pickle, std::set<std::string>& devices) {
  for (const char* type : {"cpu", "cuda", "mps", "xpu", "hpu"}) {
    for (size_t found = pickle.find(type); found != std::string::npos; found = pickle.find(type, found + 1)) {
      const size_t length = found < 5 ? 0 : static_cast<unsigned char>(pickle[found - 4]);
      const std::string name = pickle.substr(found, length);
      const bool whole = length > 0 && pickle.compare(found - 5, 1, "X") == 0 && pickle.compare(found - 3, 3, "\0\0\0", 3) == 0;
      const size_t end = std::strlen(type);
      const bool numbered =
          name.size() > end + 1 && name[end] == ':' && name.find_first_not_of("0123456789", end + 1) == std::string::npos;
      if (whole && (name.size() == end || numbered)) devices.insert(name);
    }
  }
}

// torch does not compare checksums, nor mind a record that can't be decompressed: numbers and code that changed on the way would be
// taken for what was saved, and debug records that did can crash it.
FileContent undamaged_content(const std::string& path, std::istream& file, caffe2::serialize::PyTorchStreamReader& archive) try {
  const auto checksums = zip_checksums(file);
  FileContent known;
  std::set<std::string> devices;
  for (const std::string& record : archive.getAllRecords()) {
    std::string content = content_of(archive, record, 0);
    if (crc32_fast(content.data(), content.size()) != checksums.at(record)) fail<LoadError>(path, kDamaged);
    if (record == "data.pkl" || record == "constants.pkl") add_devices(content, devices);
    if (record.rfind(kExtra, 0) == 0) known.extra_files.emplace(record.substr(kExtra.size()), std::move(content));
  }
  known.devices = fmt::format("{}", fmt::join(devices, ", "));
  return known;
} catch (const std::out_of_range&) {
  fail<LoadError>(path, kDamaged);
}

FileContent content_of_torchscript(const std::string& path, std::istream& file) {
  try {
    caffe2::serialize::PyTorchStreamReader archive(&file);
    if (!archive.hasRecord("constants.pkl")) {
      fail<LoadError>(path, fmt::format("{}, not a TorchScript module; {}", kind_of(archive), kHowToSave));
    }
    return undamaged_content(path, file, archive);
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
    return fmt::format(
        "needs an operator or class that is not here: {}; load the library that has it first, with torch.ops.load_library, "
        "dlopen "
        "or --load-library",
        detail(reason.substr(0, reason.find('\n'))));
  }
  if (says({"PytorchStreamReader failed", "INTERNAL ASSERT FAILED", "Unknown type name"})) return kDamaged;
  if (says({"not enough memory", "can't allocate memory"})) return kNoMemory;
  return fmt::format("can't be loaded, it is damaged or a newer PyTorch wrote it: {}", detail(what));
}

// What torch said where a module could not be loaded, or what its devices tell.
std::string failure_on_devices(const std::string& what, const std::string& stored,
                               const std::optional<at::Device>& map_location) {
  if (map_location && map_location->is_cuda() && !at::hasCUDA())
    return fmt::format("can't be loaded onto {}, as there is no GPU; load it onto the CPU", map_location->str());
  if (!map_location && stored.find("cuda") != std::string::npos && !at::hasCUDA()) {
    return fmt::format(
        "was saved from a GPU ({}), and there is none; load it with map_location=\"cpu\", at::kCPU or --device cpu", stored);
  }
  return load_failure(what);
}

}  // namespace

jit::Module load(const std::string& path, std::optional<at::Device> map_location, FileContent* content) {
  std::ifstream file = opened(path);
  FileContent known;
  try {
    known = content_of_torchscript(path, file);
    jit::Module module = map_location ? jit::load(file, *map_location) : jit::load(file);
    if (content != nullptr) *content = std::move(known);
    return module;
  } catch (const LoadError&) {
    throw;
  } catch (const c10::Error& error) {
    fail<LoadError>(path, failure_on_devices(error.what_without_backtrace(), known.devices, map_location));
  } catch (const std::bad_alloc&) {
    fail<LoadError>(path, kNoMemory);
  } catch (const std::exception& error) {
    fail<LoadError>(path, failure_on_devices(error.what(), known.devices, map_location));
  }
}

}  // namespace bnfold
