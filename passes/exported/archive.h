// The .pt2 file of an exported program: a zip archive with the JSON of the program, a record for each piece of memory that weights or
// constants lie in, and a table of each of these two kinds.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bnfold/exported.h"
#include "exported/json.h"

namespace bnfold {

class ExportedArchive {
 public:
  using Records = std::vector<std::pair<std::string, std::shared_ptr<const std::string>>>;  // by their names, in their order

  // Throws LoadError where `records`, of the file at `path`, are those of no program that can be folded.
  ExportedArchive(const std::string& path, Records records);

  const std::string& program() const { return *program_; }

  // Those whose contents can be read: no objects of classes, and no tensors of a dtype that this LibTorch lacks, or without contents.
  const std::unordered_map<std::string, at::Tensor>& tensors() const { return tensors_; }

  // With the records of what is still in `program`, and new ones for what changed. Throws SaveError.
  void write(const ExportedProgram& program, const std::string& path) const;

 private:
  using Json = exported::Json;

  // One of the two tables.
  struct Table {
    std::string record;  // its own
    std::string folder;  // of the contents
    std::string prefix;  // of their names
    Json entries;        // by dotted name
  };

  // What a file of another program has in the place of a table and of the records that belong to it.
  struct Changes {
    std::set<std::string> left_out;
    std::vector<std::pair<std::string, at::Tensor>> tensors;  // by the names of their records
    std::string table;
  };

  // What a program says of what it reads, by dotted name.
  struct Place {
    bool is_parameter;
    bool is_constant;  // and no part of the state
    Json meta;
  };
  using Places = std::map<std::string, Place>;

  static Places places_of(const Json& program);
  Json entries_kept(const Table& table, const ExportedProgram& program, const Places& before, const Places& now) const;
  Changes changes_in(const Table& table, const ExportedProgram& program, const Places& before, const Places& now) const;
  const std::shared_ptr<const std::string>& record(const std::string& name) const;
  Table table(const std::string& folder, const std::string& kind, const std::string& prefix) const;
  void require_one_device() const;
  void read_tensors(const Table& table);
  void read_group(const Table& table, const std::string& name, const std::vector<std::string>& paths);

  std::string path_;
  std::string model_;  // "model"
  Records records_;
  std::shared_ptr<const std::string> program_;
  Table weights_;
  Table constants_;
  std::unordered_map<std::string, at::Tensor> tensors_;
};

}  // namespace bnfold
