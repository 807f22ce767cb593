#include "picture.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>

#include "failure.h"

namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

std::string format_of(const std::string& path) {
  const std::string ending = std::filesystem::path(path).extension().string();
  return ending.empty() ? "" : ending.substr(1);
}

bool is_text(const std::string& format) {
  return format == "dot" || format == "gv";
}

File temporary_file() {
  File file(std::tmpfile(), std::fclose);
  if (!file) throw Failure(kCannotWrite, fmt::format("the picture can't be made: {}", std::strerror(errno)));
  return file;
}

bool to_beginning(const File& file) {
  return std::fseek(file.get(), 0, SEEK_SET) == 0;
}

// Nothing where it can't be read.
std::optional<std::string> content_of(const File& file) {
  if (!to_beginning(file)) return std::nullopt;
  std::string content;
  std::array<char, 4096> part{};
  while (std::feof(file.get()) == 0 && std::ferror(file.get()) == 0) {
    content.append(part.data(), std::fread(part.data(), 1, part.size(), file.get()));
  }
  return std::ferror(file.get()) == 0 ? std::optional<std::string>(content) : std::nullopt;
}

// The exit status of `dot` with `input` and `output` as its standard streams; -1 where it can't be run.
int run_dot(const std::string& format, std::FILE* input, std::FILE* output) {
  std::string program = "dot";
  std::string option = "-T" + format;
  const std::array<char*, 3> arguments = {program.data(), option.data(), nullptr};
  posix_spawn_file_actions_t streams;
  posix_spawn_file_actions_init(&streams);
  posix_spawn_file_actions_adddup2(&streams, fileno(input), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&streams, fileno(output), STDOUT_FILENO);
  pid_t child = 0;
  const int error = posix_spawnp(&child, program.c_str(), &streams, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&streams);
  int status = 0;
  if (error != 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

}  // namespace

void require_picture_format(const std::string& path) {
  static const std::set<std::string> formats = {"svg", "pdf", "png", "dot", "gv"};
  if (formats.count(format_of(path)) == 0) {
    throw Failure(kUsage, fmt::format("--plot can't tell the format of {}; end its name in .svg, .pdf, .png or .dot", path));
  }
}

std::string picture_of(const std::string& graph, const std::string& path) {
  const std::string format = format_of(path);
  if (is_text(format)) return graph;
  const File input = temporary_file();
  const File output = temporary_file();
  const bool written = std::fwrite(graph.data(), 1, graph.size(), input.get()) == graph.size();
  const int status = written && to_beginning(input) ? run_dot(format, input.get(), output.get()) : -1;
  if (status != 0) {
    throw Failure(
        kCannotWrite,
        "the picture can't be made: Graphviz's program dot did not run; install graphviz, or give a name that ends in .dot");
  }
  const auto content = content_of(output);
  if (!content) throw Failure(kCannotWrite, "the picture can't be made: what dot drew can't be read back");
  return *content;
}
