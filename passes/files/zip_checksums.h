// The checksums in the central directory of a zip archive. LibTorch reads the records of an archive and leaves these out.
//
// An archive ends in an end record, which tells where the directory begins and how long it is; with more than 4 GB, a second end record
// with wider numbers stands before it, and a locator between the two (APPNOTE.TXT of PKWARE, 4.3.12 to 4.3.16).
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <unordered_map>

namespace bnfold {

// The CRC-32 of each record by its name without the folder that all records of a TorchScript file are in. Throws std::out_of_range where
// the file is no whole archive.
std::unordered_map<std::string, uint32_t> zip_checksums(std::istream& file);

// The CRC-32 of `content`.
uint32_t checksum_of(const std::string& content);

}  // namespace bnfold
