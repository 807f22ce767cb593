#include "files/open_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "bnfold/files.h"
#include "files/file_errors.h"

namespace bnfold {

namespace fs = std::filesystem;

std::ifstream opened(const std::string& path) {
  if (path.find('\0') != std::string::npos) fail<LoadError>(path, "no path has a zero byte");
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) fail<LoadError>(path, "there is no such file");
  if (error) fail<LoadError>(path, error.message());
  if (fs::is_directory(status)) fail<LoadError>(path, "is a directory; give the path of a .pt or .pt2 file");
  if (!fs::is_regular_file(status)) fail<LoadError>(path, "is no regular file, which loading takes");
  if (faccessat(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS) != 0) fail<LoadError>(path, "no permission to read it");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail<LoadError>(path, "can't be opened");
  if (file.peek() == std::ifstream::traits_type::eof()) fail<LoadError>(path, "the file is empty");
  return file;
}

bool starts_like_a_zip(std::istream& file) {
  std::array<char, 4> magic = {};
  file.read(magic.data(), magic.size());
  return file && magic == std::array<char, 4>{'P', 'K', 3, 4};
}

namespace {

template <typename Archive>
auto content_in(Archive& archive, const std::string& record, int) -> decltype(archive.getRecordSize(record), std::string()) {
  std::string content(archive.getRecordSize(record), '\0');
  archive.getRecord(record, content.data(), content.size());
  return content;
}

// For a LibTorch without getRecordSize.
template <typename Archive>
std::string content_in(Archive& archive, const std::string& record, long) {
  const auto [content, size] = archive.getRecord(record);
  return {static_cast<const char*>(content.get()), size};
}

}  // namespace

std::string content_of(caffe2::serialize::PyTorchStreamReader& archive, const std::string& record) {
  return content_in(archive, record, 0);
}

}  // namespace bnfold
