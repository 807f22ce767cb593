// Opens the files that are loaded, and reads the records of their archives.
#pragma once

#include <caffe2/serialize/inline_container.h>

#include <fstream>
#include <istream>
#include <string>

namespace bnfold {

inline constexpr const char* kDamaged = "the file is truncated or damaged; copy or save it again";
inline constexpr const char* kNoMemory = "there is not enough memory for it, or the file is damaged";

// The file is opened once, for all that reads it: by its path, another one may have taken its place between two steps. Throws LoadError.
std::ifstream opened(const std::string& path);

// Reads the first bytes.
bool starts_like_a_zip(std::istream& file);

// The content of a record, zeros where it can't be decompressed: left over memory could be what it was.
std::string content_of(caffe2::serialize::PyTorchStreamReader& archive, const std::string& record);

}  // namespace bnfold
