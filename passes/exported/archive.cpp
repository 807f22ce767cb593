#include "exported/archive.h"

#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>

#include "exported/read_graph.h"
#include "exported/targets.h"
#include "files/file_errors.h"
#include "files/open_file.h"
#include "files/replacement.h"
#include "files/zip_checksums.h"

namespace bnfold {

using exported::Json;

namespace {

constexpr const char* kHowToSave = "save a program with torch.export.save(torch.export.export(model.eval(), inputs), path)";
constexpr std::string_view kModels = "models/";
constexpr std::string_view kEnding = ".json";

bool is_model(const std::string& record) {
  return record.rfind(kModels, 0) == 0 && record.size() > kModels.size() + kEnding.size() &&
         record.compare(record.size() - kEnding.size(), kEnding.size(), kEnding) == 0;
}

// What the writer of PyTorch makes itself.
bool is_made_by_writer(const std::string& record) {
  return record.rfind(".data/", 0) == 0 || record == "byteorder" || record == ".format_version" ||
         record == ".storage_alignment" || record == "version";
}

std::vector<int64_t> numbers(const Json& all) {
  std::vector<int64_t> list;
  for (const Json& one : all) list.push_back(one.at("as_int").get<int64_t>());
  return list;
}

// Memory that the tensors of a group lie in, as elements of one dtype, which holds the record.
at::Tensor elements_of(const std::shared_ptr<const std::string>& record, at::ScalarType dtype) {
  auto* data =
      const_cast<char*>(record->data());  // NOLINT(cppcoreguidelines-pro-type-const-cast): nobody writes what a fold reads
  const auto count = static_cast<int64_t>(record->size() / c10::elementSize(dtype));
  return at::from_blob(
      data, {count}, [record](void*) {}, at::TensorOptions(dtype));
}

// Nothing where it would lie outside.
std::optional<at::Tensor> tensor_in(const at::Tensor& elements, const Json& meta) {
  const std::vector<int64_t> sizes = numbers(meta.at("sizes"));
  const std::vector<int64_t> strides = numbers(meta.at("strides"));
  const int64_t offset = meta.at("storage_offset").at("as_int").get<int64_t>();
  if (sizes.size() != strides.size() || offset < 0) return std::nullopt;
  int64_t last = offset;
  bool is_empty = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] < 0 || strides[i] < 0) return std::nullopt;
    is_empty |= sizes[i] == 0;
    int64_t distance = 0;
    if (sizes[i] > 0 && __builtin_mul_overflow(sizes[i] - 1, strides[i], &distance)) return std::nullopt;
    if (__builtin_add_overflow(last, distance, &last)) return std::nullopt;
  }
  if (!is_empty && last >= elements.numel()) return std::nullopt;
  return elements.as_strided(sizes, strides, offset);
}

// In the format of old versions of PyTorch, or of what torch.export does not write.
std::string why_not_a_program(const std::set<std::string>& names) {
  const auto has_folder = [&names](const std::string& folder) {
    const auto found = names.lower_bound(folder);
    return found != names.end() && found->rfind(folder, 0) == 0;
  };
  if (names.count("serialized_exported_program.json") != 0)
    return "an older PyTorch wrote it, in a format that this can't read; load it with torch.export.load, and save it with torch "
           "2.8 or newer";
  if (has_folder("data/aotinductor/")) return "is compiled by AOTInductor; fold the program before it is compiled";
  return fmt::format("holds no program; {}", kHowToSave);
}

ExportedArchive::Records undamaged_records(const std::string& path, std::istream& file) try {
  caffe2::serialize::PyTorchStreamReader archive(&file);
  const auto checksums = zip_checksums(file);
  ExportedArchive::Records records;
  for (const std::string& name : archive.getAllRecords()) {
    auto content = std::make_shared<const std::string>(content_of(archive, name));
    if (checksum_of(*content) != checksums.at(name)) fail<LoadError>(path, kDamaged);
    records.emplace_back(name, std::move(content));
  }
  return records;
} catch (const std::out_of_range&) {
  fail<LoadError>(path, kDamaged);
} catch (const c10::Error&) {
  fail<LoadError>(path, kDamaged);
}

}  // namespace

ExportedArchive::ExportedArchive(const std::string& path, Records records) : path_(path), records_(std::move(records)) {
  std::set<std::string> names;
  std::vector<std::string> models;
  for (const auto& [name, _] : records_) {
    names.insert(name);
    if (is_model(name)) models.push_back(name);
  }
  if (names.count("archive_format") == 0 || models.empty()) fail<LoadError>(path, why_not_a_program(names));
  if (models.size() > 1) fail<LoadError>(path, fmt::format("holds {} programs; save each in a file of its own", models.size()));
  const std::string version = names.count("archive_version") == 0 ? "0" : *record("archive_version");
  if (version != "0")
    fail<LoadError>(
        path,
        fmt::format("is an archive of version {}, and this reads version 0; save it with a PyTorch that writes that", version));
  if (names.count("byteorder") != 0 && *record("byteorder") != "little")
    fail<LoadError>(path, "was written on a machine with another byte order; save it on one like this");
  program_ = record(models.front());
  model_ = models.front().substr(kModels.size(), models.front().size() - kModels.size() - kEnding.size());
  if (names.count("data/weights/" + model_ + ".pt") != 0 || names.count("data/constants/" + model_ + ".pt") != 0)
    fail<LoadError>(path, "its weights are pickled, as an older PyTorch did; load and save it with a newer one");
  weights_ = table("data/weights/", "_weights_config.json", "weight_");
  constants_ = table("data/constants/", "_constants_config.json", "tensor_");
  require_one_device();
  read_tensors(weights_);
  read_tensors(constants_);
}

const std::shared_ptr<const std::string>& ExportedArchive::record(const std::string& name) const {
  const auto found = std::find_if(records_.begin(), records_.end(), [&name](const auto& one) { return one.first == name; });
  if (found == records_.end()) throw std::out_of_range(name);
  return found->second;
}

ExportedArchive::Table ExportedArchive::table(const std::string& folder, const std::string& kind,
                                              const std::string& prefix) const {
  const std::string name = folder + model_ + kind;
  return {name, folder, prefix, Json::parse(*record(name)).at("config")};
}

// All are read into the memory of the CPU, where a norm on one device could not be told from one on another. A number is read on each.
void ExportedArchive::require_one_device() const {
  std::set<std::string> devices;
  for (const Table* table : {&weights_, &constants_}) {
    for (const auto& [path, entry] : table->entries.items()) {
      const auto meta = entry.find("tensor_meta");
      if (meta != entry.end() && meta->is_object() && !meta->at("sizes").empty()) devices.insert(meta->at("device").dump());
    }
  }
  if (devices.size() > 1)
    fail<LoadError>(path_, "its tensors lie on several devices; put them on one, with torch.export.passes.move_to_device_pass");
}

// Those that lie in one record are read together: what is written into one of them, is written into all.
void ExportedArchive::read_tensors(const Table& table) {
  std::map<std::string, std::vector<std::string>> groups;
  for (const auto& [path, entry] : table.entries.items()) {
    const auto name = entry.at("path_name").get<std::string>();
    const bool pickled = entry.at("use_pickle").get<bool>();
    if (pickled && name.rfind(table.prefix, 0) == 0)
      fail<LoadError>(
          path_, fmt::format("its tensor {} is pickled, as one of a class of its own; save a program with plain tensors", path));
    if (!pickled) groups[name].push_back(path);
  }
  for (const auto& [name, paths] : groups) read_group(table, name, paths);
}

void ExportedArchive::read_group(const Table& table, const std::string& name, const std::vector<std::string>& paths) {
  const auto& content = record(table.folder + name);
  const auto meta_of = [&table](const std::string& path) -> const Json& { return table.entries.at(path).at("tensor_meta"); };
  const Json& first = meta_of(paths.front());
  const auto dtype = exported::dtype_of(first.at("dtype").get<int64_t>());
  const bool is_plain =
      dtype && std::all_of(paths.begin(), paths.end(), [&](const std::string& path) {
        const Json& meta = meta_of(path);
        return meta.at("dtype") == first.at("dtype") && exported::layout_of(meta.at("layout").get<int64_t>()).has_value();
      });
  if (!is_plain || content->empty()) return;  // of a program that was exported without its weights
  const at::Tensor elements = elements_of(content, *dtype);
  for (const std::string& path : paths) {
    auto tensor = tensor_in(elements, meta_of(path));
    if (!tensor) fail<LoadError>(path_, kDamaged);
    if (at::isFloatingType(*dtype)) tensor->set_requires_grad(meta_of(path).at("requires_grad").get<bool>());
    tensors_.emplace(path, *tensor);
  }
}

ExportedArchive::Places ExportedArchive::places_of(const Json& program) {
  const Json& module = program.at("graph_module");
  const Json& specs = module.at("signature").at("input_specs");
  Places places;
  for (const Json& read : specs) {
    const std::string path = exported::path_of(read);
    if (path.empty()) continue;
    const Json& spec = exported::content_of(read);
    const std::string& kind = exported::kind_of(read);
    const bool is_constant = kind == "tensor_constant" || (kind == "buffer" && !spec.at("persistent").get<bool>());
    const Json& meta = module.at("graph").at("tensor_values").at(spec.at("arg").at("name").get<std::string>());
    places.emplace(path, Place{kind == "parameter", is_constant, meta});
  }
  return places;
}

namespace {

std::string_view bytes_of(const at::Tensor& tensor) {
  return {static_cast<const char*>(tensor.data_ptr()), static_cast<size_t>(tensor.numel()) * tensor.element_size()};
}

}  // namespace

// In their order; what is not there yet has no entry, in its place.
ExportedArchive::Json ExportedArchive::entries_kept(const Table& table, const ExportedProgram& program, const Places& before,
                                                    const Places& now) const {
  Json entries = Json::object();
  for (const auto& [name, entry] : table.entries.items()) {
    if (before.count(name) != 0 && now.count(name) == 0) continue;
    const auto old = tensors_.find(name);
    const auto here = program.tensors.find(name);
    const bool is_new = here != program.tensors.end() && (old == tensors_.end() || !here->second.is_same(old->second));
    entries[name] = is_new ? Json() : entry;
  }
  return entries;
}

ExportedArchive::Changes ExportedArchive::changes_in(const Table& table, const ExportedProgram& program, const Places& before,
                                                     const Places& now) const {
  Json entries = entries_kept(table, program, before, now);
  Changes changes;
  changes.left_out.insert(table.record);
  std::set<std::string> taken;
  for (const auto& [_, entry] : table.entries.items()) {
    taken.insert(entry.at("path_name").get<std::string>());
    changes.left_out.insert(table.folder + entry.at("path_name").get<std::string>());
  }
  for (const auto& [_, entry] : entries.items()) {
    if (!entry.is_null()) changes.left_out.erase(table.folder + entry.at("path_name").get<std::string>());
  }
  size_t number = 0;
  for (const auto& [name, place] : now) {
    const auto tensor = program.tensors.find(name);
    const bool is_kept = entries.contains(name) && !entries.at(name).is_null();
    if (place.is_constant != (&table == &constants_) || tensor == program.tensors.end() || is_kept) continue;
    std::string content;
    do content = fmt::format("{}{}", table.prefix, number++);
    while (taken.count(content) != 0);
    changes.tensors.emplace_back(table.folder + content, tensor->second);
    entries[name] =
        Json{{"path_name", content}, {"is_param", place.is_parameter}, {"use_pickle", false}, {"tensor_meta", place.meta}};
  }
  changes.table = Json{{"config", entries}}.dump();
  return changes;
}

void ExportedArchive::write(const ExportedProgram& program, const std::string& path) const {
  const Places before = places_of(Json::parse(*program_));
  const Places now = places_of(Json::parse(program.json));
  const Changes weights = changes_in(weights_, program, before, now);
  const Changes constants = changes_in(constants_, program, before, now);
  const std::string model = fmt::format("{}{}{}", kModels, model_, kEnding);
  const auto stays = [&](const std::string& name) {
    return name != model && weights.left_out.count(name) == 0 && constants.left_out.count(name) == 0 && !is_made_by_writer(name);
  };
  Replacement file(path);
  try {
    caffe2::serialize::PyTorchStreamWriter writer([&file](const void* data, size_t size) { return file.write(data, size); });
    writer.setMinVersion(6);
    const auto write_record = [&writer](const std::string& name, std::string_view content) {
      writer.writeRecord(name, content.data(), content.size());
    };
    for (const auto& [name, content] : records_) {
      if (stays(name)) write_record(name, *content);
    }
    for (const Changes* changes : {&weights, &constants}) {
      for (const auto& [name, tensor] : changes->tensors) write_record(name, bytes_of(tensor.cpu()));
    }
    write_record(weights_.record, weights.table);
    write_record(constants_.record, constants.table);
    write_record(model, program.json);
    writer.writeEndOfFile();
  } catch (const c10::Error& error) {
    fail<SaveError>(path, fmt::format("the program can't be serialized: {}", detail(error.what_without_backtrace())));
  }
  file.take_place();
}

bool is_exported_file(const std::string& path) {
  std::ifstream file = opened(path);
  if (!starts_like_a_zip(file)) return false;
  try {
    caffe2::serialize::PyTorchStreamReader archive(&file);
    return archive.hasRecord("archive_format") || archive.hasRecord("serialized_exported_program.json");
  } catch (const c10::Error&) {
    return false;
  }
}

ExportedProgram load_exported(const std::string& path) {
  std::ifstream file = opened(path);
  if (!starts_like_a_zip(file)) fail<LoadError>(path, fmt::format("no zip archive; {}", kHowToSave));
  try {
    auto archive = std::make_shared<const ExportedArchive>(path, undamaged_records(path, file));
    ExportedProgram program;
    program.json = archive->program();
    program.tensors = archive->tensors();
    program.archive = std::move(archive);
    exported::reading([&program] { return exported::read_graph(exported::parsed_program(program.json), program.tensors); });
    return program;
  } catch (const LoadError&) {
    throw;
  } catch (const Error& error) {
    fail<LoadError>(path, error.what());
  } catch (const Json::exception&) {
    fail<LoadError>(path, kDamaged);
  } catch (const std::out_of_range&) {
    fail<LoadError>(path, kDamaged);
  } catch (const std::bad_alloc&) {
    fail<LoadError>(path, kNoMemory);
  } catch (const c10::Error& error) {
    fail<LoadError>(path, fmt::format("can't be read: {}", detail(error.what_without_backtrace())));
  }
}

void save(const ExportedProgram& program, const std::string& path) {
  if (program.archive == nullptr) throw Error("the program comes from memory, and no file tells what is saved beside it");
  program.archive->write(program, path);
}

}  // namespace bnfold
