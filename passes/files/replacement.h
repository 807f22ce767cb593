// Writes a file that at every moment is the old one or the whole new one.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace bnfold {

// Takes the place of a file at once and whole, or is gone. Where the file system can, it has no name before, so that nothing is left of
// it where the process is killed. A link stays a link. Throws SaveError.
class Replacement {
 public:
  explicit Replacement(const std::string& path);
  ~Replacement();
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  // Never reports less than `size`: the writer of torch would throw once more in its destructor. The first failure is thrown by take_place.
  size_t write(const void* data, size_t size);

  void take_place();

 private:
  void give_name();
  void flush_directory() const;
  [[noreturn]] void fail_with(int error) const;

  std::filesystem::path target_;
  std::filesystem::path directory_;
  std::filesystem::path name_;
  int descriptor_ = -1;
  int error_ = 0;  // the first errno of write
  bool named_ = false;
};

}  // namespace bnfold
