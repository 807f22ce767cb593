// Writes IR line by line: nodes, constants and attributes in every form that the parser of IR takes, plain ones first.
#pragma once

#include <string>
#include <vector>

#include "choices.h"
#include "ir_program.h"

namespace bnfold::fuzz {

using Name = std::string;  // of a value, as "%x.3"
using Names = std::vector<Name>;

class GraphWriter {
 public:
  explicit GraphWriter(Choices& choices) : choices_(choices), odd_names_(choices.one_in(3)) {}

  // A node with one output, with several, with none. `kind` may have attributes behind it: "prim::GetAttr[name=\"weight\"]".
  Name node(const std::string& kind, const Names& inputs, const std::string& type = "Tensor");
  Names nodes(const std::string& kind, const Names& inputs, const std::vector<std::string>& types);
  void effect(const std::string& kind, const Names& inputs);

  // A constant written as such.
  Name constant(const std::string& type, const std::string& value);

  // Constants, most of them written as such, some computed from others or read from attributes.
  Name integer(int64_t number);
  Name number(double number);
  Name flag(bool flag);
  Name integers(const std::vector<int64_t>& numbers);
  Name text(const std::string& text);
  Name none();

  // An input of the graph.
  Name input(const TensorSpec& spec, bool with_sizes = false);

  // A tensor that belongs to a layer, most often an attribute of that name; some are shared, computed, or come in as inputs.
  Name tensor(const std::string& path, const TensorSpec& spec, bool is_buffer = false);

  // A tensor attribute of that path, read here.
  Name attribute(const std::string& path, const TensorSpec& spec, bool is_buffer = false);

  // A number that the module counts up.
  void count_up();

  // A path for a new layer: "conv3", or "block.conv3".
  std::string layer(const std::string& kind);

  // The blocks of the last node written. Names that a block makes are not known behind it: that is for the caller to heed.
  void open_block(const std::vector<std::pair<Name, std::string>>& inputs = {});
  void close_block(const Names& outputs);
  Name new_name();

  // The program, whose graph returns `output`.
  IrProgram finish(const Name& output);

 private:
  void line(const std::string& text);
  Name plain(const std::string& type, const c10::IValue& value);
  Name read(const std::string& path, const std::string& type);

  // As scripting and freezing name their values, and as would mislead who reads a meaning in them.
  const std::vector<std::string> stems_ = {"x.", "", "self.norm.weight.", "input.", "running_mean."};

  Choices& choices_;
  const bool odd_names_;
  IrProgram program_;
  std::string header_ = "%self";
  std::string body_;
  int indent_ = 1;
  size_t values_ = 0;
  int layers_ = 0;
};

}  // namespace bnfold::fuzz
