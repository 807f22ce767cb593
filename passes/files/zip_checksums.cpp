#include "files/zip_checksums.h"

#include <caffe2/serialize/crc_alt.h>

#include <cstring>
#include <istream>
#include <stdexcept>

namespace bnfold {

namespace {

template <typename Number>
Number number_at(const std::string& bytes, size_t place) {
  Number number;
  if (place > bytes.size() || bytes.size() - place < sizeof number) throw std::out_of_range("a zip archive ends too early");
  std::memcpy(&number, bytes.data() + place, sizeof number);
  return number;
}

std::string bytes_at(std::istream& file, uint64_t place, uint64_t size) {
  file.seekg(0, std::ios::end);
  const auto end = static_cast<uint64_t>(file.tellg());
  if (place > end || end - place < size) throw std::out_of_range("a zip archive ends too early");
  std::string bytes(size, '\0');
  file.seekg(static_cast<std::streamoff>(place));
  file.read(bytes.data(), static_cast<std::streamsize>(size));
  return bytes;
}

std::string zip_directory(std::istream& file) {
  constexpr uint64_t kLongestEnd = 22 + 65535 + 20;  // the end record, a comment, and a locator
  file.seekg(0, std::ios::end);
  const auto size = static_cast<uint64_t>(file.tellg());
  const uint64_t start = size > kLongestEnd ? size - kLongestEnd : 0;
  const std::string tail = bytes_at(file, start, size - start);
  const size_t end = tail.rfind("PK\5\6");
  if (end == std::string::npos) throw std::out_of_range("a zip archive without an end");
  if (end < 20 || tail.compare(end - 20, 4, "PK\6\7") != 0) {
    return bytes_at(file, number_at<uint32_t>(tail, end + 16), number_at<uint32_t>(tail, end + 12));
  }
  const std::string wide_end = bytes_at(file, number_at<uint64_t>(tail, end - 12), 56);
  return bytes_at(file, number_at<uint64_t>(wide_end, 48), number_at<uint64_t>(wide_end, 40));
}

}  // namespace

std::unordered_map<std::string, uint32_t> zip_checksums(std::istream& file) {
  const std::string directory = zip_directory(file);
  std::unordered_map<std::string, uint32_t> checksums;
  for (size_t entry = 0; entry < directory.size();) {
    const size_t name_length = number_at<uint16_t>(directory, entry + 28);
    const std::string name = directory.substr(entry + 46, name_length);
    checksums[name.substr(name.find('/') + 1)] = number_at<uint32_t>(directory, entry + 16);
    entry += 46 + name_length + number_at<uint16_t>(directory, entry + 30) + number_at<uint16_t>(directory, entry + 32);
  }
  return checksums;
}

uint32_t checksum_of(const std::string& content) {
  return crc32_fast(content.data(), content.size());
}

}  // namespace bnfold
