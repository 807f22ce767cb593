// Reads a TorchScript file that is whole, and says of every other one what it is.
#include <ATen/Context.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/ranges.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <new>
#include <set>
#include <stdexcept>
#include <utility>

#include "bnfold/files.h"
#include "files/file_errors.h"
#include "files/open_file.h"
#include "files/zip_checksums.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

constexpr const char* kHowToSave = "save a ScriptModule with torch.jit.save(torch.jit.script(model.eval()), path)";
const std::string kExtra = "extra/";

// What an archive that is no TorchScript module is.
const char* kind_of(caffe2::serialize::PyTorchStreamReader& archive) {
  if (archive.hasRecord("archive_format") || archive.hasRecord("serialized_exported_program.json"))
    return "a torch.export program";
  if (archive.hasRecord(".data/extern_modules")) return "a torch.package archive";
  return "a state_dict or pickled object";
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
    std::string content = content_of(archive, record);
    if (checksum_of(content) != checksums.at(record)) fail<LoadError>(path, kDamaged);
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
    return fmt::format(
        "can't be loaded onto {}, as there is no GPU; load it onto the CPU, by map_location=\"cpu\" or --device cpu",
        map_location->str());
  if (!map_location && stored.find("cuda") != std::string::npos && !at::hasCUDA()) {
    return fmt::format(
        "was saved from a GPU ({}), and there is none; load it with map_location=\"cpu\", at::kCPU or --device cpu", stored);
  }
  return load_failure(what);
}

}  // namespace

jit::Module load(const std::string& path, std::optional<at::Device> map_location, FileContent* content) {
  std::ifstream file = opened(path);
  if (!starts_like_a_zip(file)) fail<LoadError>(path, fmt::format("not a TorchScript file (no zip archive); {}", kHowToSave));
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
