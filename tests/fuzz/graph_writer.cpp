#include "graph_writer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace bnfold::fuzz {

Name GraphWriter::new_name() {
  ++values_;
  return "%" + (odd_names_ ? stems_[values_ % stems_.size()] : "") + std::to_string(values_);
}

void GraphWriter::line(const std::string& text) {
  body_ += std::string(2 * static_cast<size_t>(indent_), ' ') + text + "\n";
}

Names GraphWriter::nodes(const std::string& kind, const Names& inputs, const std::vector<std::string>& types) {
  Names names;
  std::vector<std::string> typed;
  for (const std::string& type : types) {
    names.push_back(new_name());
    typed.push_back(names.back() + " : " + type);
  }
  line(fmt::format("{}{}{}({})", fmt::join(typed, ", "), typed.empty() ? "" : " = ", kind, fmt::join(inputs, ", ")));
  return names;
}

Name GraphWriter::node(const std::string& kind, const Names& inputs, const std::string& type) {
  return nodes(kind, inputs, {type}).front();
}

void GraphWriter::effect(const std::string& kind, const Names& inputs) {
  nodes(kind, inputs, {});
}

Name GraphWriter::constant(const std::string& type, const std::string& value) {
  return node("prim::Constant[value=" + value + "]", {}, type);
}

Name GraphWriter::plain(const std::string& type, const c10::IValue& value) {
  const std::string path = layer("setting");
  program_.plain.push_back({path, value});
  return read(path, type);
}

Name GraphWriter::integer(int64_t number) {
  switch (choices_.below(16)) {
    case 15:
      return node("aten::add", {constant("int", std::to_string(number - 2)), constant("int", "2")}, "int");
    case 14:
      return node("aten::neg", {constant("int", std::to_string(-number))}, "int");
    case 13:
      return plain("int", number);
    case 12:
      return node("aten::Int", {node("prim::NumToTensor", {constant("int", std::to_string(number))})}, "int");
    default:
      return constant("int", std::to_string(number));
  }
}

Name GraphWriter::number(double number) {
  switch (choices_.below(16)) {
    case 15:
      return node("aten::mul", {constant("float", fmt::format("{:#.17g}", number / 2)), constant("float", "2.0")}, "float");
    case 14:
      return node("aten::neg", {constant("float", fmt::format("{:#.17g}", -number))}, "float");
    case 13:
      return plain("float", number);
    default:
      return constant("float", fmt::format("{:#.17g}", number));
  }
}

Name GraphWriter::flag(bool flag) {
  switch (choices_.below(16)) {
    case 15:
      return node("aten::__not__", {constant("bool", flag ? "0" : "1")}, "bool");
    case 14:
      return node("aten::eq", {constant("int", "3"), constant("int", flag ? "3" : "4")}, "bool");
    case 13:
      return plain("bool", flag);
    default:
      return constant("bool", flag ? "1" : "0");
  }
}

Name GraphWriter::integers(const std::vector<int64_t>& numbers) {
  const size_t form = choices_.below(8);
  if (form == 7) return plain("int[]", numbers);
  if (form == 6) {
    Names elements;
    for (const int64_t number : numbers) elements.push_back(integer(number));
    return node("prim::ListConstruct", elements, "int[]");
  }
  return constant("int[]", fmt::format("[{}]", fmt::join(numbers, ", ")));
}

Name GraphWriter::text(const std::string& text) {
  return constant("str", "\"" + text + "\"");
}

Name GraphWriter::none() {
  if (choices_.one_in(16)) return plain("NoneType", c10::IValue());
  return node("prim::Constant", {}, "NoneType");
}

Name GraphWriter::input(const TensorSpec& spec, bool with_sizes) {
  const Name name = new_name();
  program_.inputs.push_back(spec);
  header_ += fmt::format(", {} : {}", name, with_sizes ? fmt::format("Double({})", fmt::join(spec.sizes, ", ")) : "Tensor");
  return name;
}

Name GraphWriter::read(const std::string& path, const std::string& type) {
  Name module = "%self";
  size_t start = 0;
  for (size_t dot = path.find('.'); dot != std::string::npos; dot = path.find('.', start)) {
    module = node(fmt::format("prim::GetAttr[name=\"{}\"]", path.substr(start, dot - start)), {module});
    start = dot + 1;
  }
  return node(fmt::format("prim::GetAttr[name=\"{}\"]", path.substr(start)), {module}, type);
}

Name GraphWriter::attribute(const std::string& path, const TensorSpec& spec, bool is_buffer) {
  program_.tensors.push_back({path, spec, is_buffer});
  return read(path, "Tensor");
}

Name GraphWriter::tensor(const std::string& path, const TensorSpec& spec, bool is_buffer) {
  const auto like = [&spec](const TensorAttribute& attribute) {
    return attribute.tensor.content == spec.content && attribute.tensor.sizes == spec.sizes;
  };
  const auto other = std::find_if(program_.tensors.begin(), program_.tensors.end(), like);
  switch (choices_.below(128)) {
    case 31:
      return node("aten::mul", {attribute(path, spec, is_buffer), number(1.5)});
    case 30:
      return node("aten::add", {attribute(path, spec, is_buffer), number(0.5), integer(1)});
    case 29:
      return node("aten::detach", {attribute(path, spec, is_buffer)});
    case 28:
      return node("aten::reshape", {attribute(path, spec, is_buffer), integers(spec.sizes)});
    case 27:
      return node("prim::unchecked_cast", {attribute(path, spec, is_buffer)});
    case 26:
      return input(spec);
    case 25:
    case 24:
      return other == program_.tensors.end() ? attribute(path, spec, is_buffer) : read(other->path, "Tensor");
    default:
      return attribute(path, spec, is_buffer);
  }
}

void GraphWriter::count_up() {
  const std::string path = layer("count");
  program_.plain.push_back({path, int64_t{0}});
  const Name counted = node("aten::add", {read(path, "int"), integer(1)}, "int");
  const size_t dot = path.find('.');
  const Name module = dot == std::string::npos ? "%self" : read(path.substr(0, dot), "Tensor");
  effect(fmt::format("prim::SetAttr[name=\"{}\"]", path.substr(dot == std::string::npos ? 0 : dot + 1)), {module, counted});
}

std::string GraphWriter::layer(const std::string& kind) {
  return fmt::format("{}{}{}", choices_.one_in(6) ? "block." : "", kind, ++layers_);
}

void GraphWriter::open_block(const std::vector<std::pair<Name, std::string>>& inputs) {
  std::vector<std::string> typed;
  for (const auto& [name, type] : inputs) typed.push_back(name + " : " + type);
  line(fmt::format("  block({}):", fmt::join(typed, ", ")));
  indent_ += 2;
}

void GraphWriter::close_block(const Names& outputs) {
  line(fmt::format("-> ({})", fmt::join(outputs, ", ")));
  indent_ -= 2;
}

IrProgram GraphWriter::finish(const Name& output) {
  line(fmt::format("return ({})", output));
  program_.graph = fmt::format("graph({}):\n{}", header_, body_);
  program_.knows_ranks = choices_.one_in(3);
  program_.shares_inputs = choices_.one_in(4);
  program_.seed = static_cast<int64_t>(choices_.below(256));
  return std::move(program_);
}

}  // namespace bnfold::fuzz
