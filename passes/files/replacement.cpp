#include "files/replacement.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>
#include <system_error>

#include "bnfold/files.h"
#include "files/file_errors.h"

namespace bnfold {

namespace fs = std::filesystem;

namespace {

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

std::string unused_name() {
  std::random_device random;
  return fmt::format(".bnfold-{:08x}{:08x}", random(), random());
}

}  // namespace

Replacement::Replacement(const std::string& path)
    : target_(target_of(path)),
      directory_(target_.has_parent_path() ? target_.parent_path() : "."),
      name_(directory_ / unused_name()) {
  constexpr int kFlags = O_WRONLY | O_CLOEXEC;
  if (fs::exists("/proc/self/fd")) descriptor_ = open(directory_.c_str(), kFlags | O_TMPFILE, 0666);
  if (descriptor_ >= 0) return;
  descriptor_ = open(name_.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
  if (descriptor_ < 0) fail<SaveError>(target_, fmt::format("can't write beside it: {}", std::strerror(errno)));
  named_ = true;
}

Replacement::~Replacement() {
  close(descriptor_);
  if (named_) unlink(name_.c_str());
}

size_t Replacement::write(const void* data, size_t size) {
  size_t written = 0;
  while (error_ == 0 && written < size) {
    const ssize_t count = ::write(descriptor_, static_cast<const char*>(data) + written, size - written);
    if (count >= 0) written += static_cast<size_t>(count);
    if (count < 0 && errno != EINTR) error_ = errno;
  }
  return size;
}

void Replacement::take_place() {
  struct stat replaced = {};
  if (stat(target_.c_str(), &replaced) == 0) fchmod(descriptor_, replaced.st_mode & 0777);
  if (error_ != 0) fail_with(error_);
  if (fsync(descriptor_) != 0) fail_with(errno);
  if (!named_) give_name();
  if (std::rename(name_.c_str(), target_.c_str()) != 0) fail_with(errno);
  named_ = false;
  flush_directory();
}

void Replacement::give_name() {
  const std::string open_file = fmt::format("/proc/self/fd/{}", descriptor_);
  if (linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name_.c_str(), AT_SYMLINK_FOLLOW) != 0) fail_with(errno);
  named_ = true;
}

// So that the new name outlives a power failure too. Some file systems can't; the file is whole all the same.
void Replacement::flush_directory() const {
  const int directory = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  fsync(directory);
  close(directory);
}

void Replacement::fail_with(int error) const {
  fail<SaveError>(target_, fmt::format("can't be written: {}", std::strerror(error)));
}

}  // namespace bnfold
