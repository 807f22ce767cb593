// Draws the two graphs: a box for each operator that the inputs reach, in the order of the graph.
#include "bnfold/graphviz.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>
#include <vector>

#include "drawing.h"
#include "graph/parameter_store.h"
#include "knowledge/find_norms.h"
#include "module/flatten.h"
#include "rules/kernel_rule.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Of Okabe and Ito, whose colors can be told apart by people who don't see red and green.
constexpr const char* kKept = "#D55E00";
constexpr const char* kMerged = "#E69F00";

// Into one box. A concatenation of DenseNet reads up to 32 values from all over the graph, which Graphviz lays out for minutes.
constexpr size_t kMostArrows = 6;

const char* color_of(Direction direction) {
  if (direction == Direction::backward) return "#0072B2";
  return direction == Direction::forward ? "#009E73" : "#CC79A7";
}

std::string escaped(const std::string& text) {
  std::string result;
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter;
  }
  return result;
}

// What became of each norm, by its name, and the way in which each layer took one.
struct Fates {
  explicit Fates(const Report& report) {
    for (const FoldedNorm& norm : report.folded) folded.emplace(norm.name, norm);
    for (const FoldedNorm& scale : report.scales) folded.emplace(scale.name, scale);
    for (const KeptNorm& norm : report.kept) reasons.emplace(norm.name, name(norm.reason));
    for (const auto& [_, norm] : folded) {
      for (const std::string& layer : norm.into) taken.emplace(layer, norm.direction);
    }
  }

  std::map<std::string, FoldedNorm> folded;
  std::map<std::string, std::string> reasons;
  std::map<std::string, Direction> taken;
};

bool holds_tensors(const c10::TypePtr& type) {
  if (type->kind() == c10::TypeKind::TensorType) return true;
  const auto contained = type->containedTypes();
  return std::any_of(contained.begin(), contained.end(), holds_tensors);
}

bool is_operator(const jit::Node* node) {
  const bool computes = !node->kind().is_prim() || node->kind() == jit::prim::fork;
  const auto outputs = node->outputs();
  return computes && node->kind() != jit::aten::append &&
         std::any_of(outputs.begin(), outputs.end(), [](const jit::Value* value) { return holds_tensors(value->type()); });
}

// One of the two graphs: a cluster of boxes.
class Drawing {
 public:
  Drawing(Program program, const Fates& fates, std::string title)
      : program_(std::move(program)), store_(program_), fates_(fates), title_(std::move(title)) {
    for (const Program::Method& method : program_.methods) draw(method);
  }

  std::string cluster() const {
    return fmt::format("  subgraph cluster_{0} {{\n    label = {0}; color = gray;\n{1}  }}\n{2}", title_, boxes_, arrows_);
  }

  // The arrows from each folded norm, and each convolution that was merged, to the layers that took it.
  std::string folds(const std::vector<MergedConv>& merged) const {
    std::string text;
    for (const auto& [box, norm] : folded_) {
      for (const std::string& layer : norm->into) text += arrows_to(layer, box, color_of(norm->direction));
    }
    for (const MergedConv& conv : merged) {
      for (const size_t box : boxes_of(conv.name)) text += arrows_to(conv.into, box, kMerged);
    }
    return text;
  }

 private:
  using Boxes = std::set<size_t>;  // by their numbers, in the order of the graph

  void draw(const Program::Method& method) {
    const std::string prefix = method.name == "forward" ? "" : method.name + ": ";
    for (jit::Node* node : find_norms(*method.graph)) {
      const auto norm = read_norm(node, store_);
      if (!norm) continue;
      for (const jit::Node* part : norm->nodes) norms_.insert_or_assign(part, norm->name);
    }
    for (const jit::Value* input : method.graph->inputs().slice(1)) {
      sources_[input] = {add_box(prefix + escaped(input->debugNameBase()), "shape = ellipse")};
    }
    draw(method.graph->block());
    add_arrows(sources_of(method.graph->outputs()), add_box(prefix + "output", "shape = ellipse"));
  }

  void draw(const jit::Block* block) {
    for (const jit::Node* node : const_cast<jit::Block*>(block)->nodes()) draw(node);
  }

  // Branches, loops and lists have no box: what reads them reads what they hold.
  void draw(const jit::Node* node) {
    if (node->kind() == jit::prim::Loop) {
      const auto parameters = node->blocks().at(0)->inputs();
      for (size_t i = 1; i < parameters.size(); ++i) sources_[parameters[i]] = sources_of(node->inputs().slice(i + 1, 1));
    }
    for (const jit::Block* inner : node->blocks()) draw(inner);
    const Boxes sources = sources_of(node->inputs());
    if (node->kind() == jit::aten::append) sources_[node->input(0)] = sources;
    const Boxes held = is_operator(node) && !sources.empty() ? Boxes{draw_operator(node, sources)} : sources;
    for (size_t i = 0; i < node->outputs().size(); ++i) {
      sources_[node->output(i)] = node->blocks().empty() ? held : sources_behind(node, i);
    }
  }

  size_t draw_operator(const jit::Node* node, const Boxes& sources) {
    const auto norm = norms_.find(node);
    const std::string name = norm == norms_.end() ? layer_of(node) : norm->second;
    std::string label = node->kind().toUnqualString();
    if (!name.empty()) label += "\\n" + escaped(name);
    if (sources.size() > kMostArrows) label += fmt::format("\\nof {} values", sources.size());
    const size_t box = norm == norms_.end() ? add_layer(name, label) : add_norm(name, label);
    add_arrows(sources, box);
    return box;
  }

  size_t add_norm(const std::string& name, const std::string& label) {
    const auto filled = [](const char* color) {
      return fmt::format("style = filled, fontcolor = white, fillcolor = \"{}\"", color);
    };
    if (const auto reason = fates_.reasons.find(name); reason != fates_.reasons.end()) {
      return add_box(label + "\\n" + reason->second, filled(kKept));
    }
    const auto fate = fates_.folded.find(name);
    if (fate == fates_.folded.end()) return add_box(label, "");
    const size_t box = add_box(label, filled(color_of(fate->second.direction)));
    folded_.emplace_back(box, &fate->second);
    return box;
  }

  size_t add_layer(const std::string& name, const std::string& label) {
    const auto taken = fates_.taken.find(name);
    const std::string style =
        taken == fates_.taken.end() ? "" : fmt::format("color = \"{}\", penwidth = 2", color_of(taken->second));
    const size_t box = add_box(label, style);
    if (!name.empty()) layers_[name].push_back(box);
    return box;
  }

  size_t add_box(const std::string& label, const std::string& style) {
    boxes_ += fmt::format("    {} [label = \"{}\"{}{}];\n", name_of(count_), label, style.empty() ? "" : ", ", style);
    return count_++;
  }

  void add_arrows(const Boxes& sources, size_t box) {
    const size_t left_out = sources.size() - std::min(sources.size(), kMostArrows);
    for (auto source = std::next(sources.begin(), static_cast<int64_t>(left_out)); source != sources.end(); ++source) {
      arrows_ += fmt::format("  {} -> {};\n", name_of(*source), name_of(box));
    }
  }

  std::vector<size_t> boxes_of(const std::string& layer) const {
    const auto found = layers_.find(layer);
    return found == layers_.end() ? std::vector<size_t>{} : found->second;
  }

  std::string arrows_to(const std::string& layer, size_t from, const char* color) const {
    std::string text;
    for (const size_t taker : boxes_of(layer)) {
      text +=
          fmt::format("  {} -> {} [style = dashed, constraint = false, color = \"{}\"];\n", name_of(from), name_of(taker), color);
    }
    return text;
  }

  std::string name_of(size_t box) const { return fmt::format("{}_{}", title_, box); }

  // The path of the layer whose weight `node` reads, nothing where it reads none.
  std::string layer_of(const jit::Node* node) const {
    for (const jit::Value* input : node->inputs()) {
      const auto operand = static_operand(store_, const_cast<jit::Value*>(input));
      if (operand && operand->tensor.defined()) return store_.layer(operand->leaf);
    }
    return "";
  }

  template <typename Values>
  Boxes sources_of(const Values& values) const {
    Boxes boxes;
    for (const jit::Value* value : values) {
      const auto found = sources_.find(value);
      if (found != sources_.end() && holds_tensors(value->type())) boxes.insert(found->second.begin(), found->second.end());
    }
    return boxes;
  }

  // Those of the output `i` of a branch or a loop.
  Boxes sources_behind(const jit::Node* node, size_t i) const {
    const bool loop = node->kind() == jit::prim::Loop;
    std::vector<const jit::Value*> values;
    for (const jit::Block* inner : node->blocks()) values.push_back(inner->outputs().at(loop ? i + 1 : i));
    if (loop) values.push_back(node->input(i + 2));
    return sources_of(values);
  }

  const Program program_;
  const ParameterStore store_;
  const Fates& fates_;
  const std::string title_;
  std::unordered_map<const jit::Node*, std::string> norms_;   // by the nodes that make them
  std::unordered_map<const jit::Value*, Boxes> sources_;      // whose results a value holds
  std::map<std::string, std::vector<size_t>> layers_;         // the boxes of each
  std::vector<std::pair<size_t, const FoldedNorm*>> folded_;  // with their boxes
  std::string boxes_;
  std::string arrows_;
  size_t count_ = 0;
};

std::string legend(const Report& report) {
  std::set<std::pair<std::string, std::string>> entries;
  for (const FoldedNorm& norm : report.folded) entries.emplace(color_of(norm.direction), name(norm.direction));
  if (!report.kept.empty()) entries.emplace(kKept, "kept");
  if (!report.merged.empty()) entries.emplace(kMerged, "merged");
  std::string text = fmt::format("{} of {} norms folded", report.folded.size(), report.folded.size() + report.kept.size());
  for (const auto& [color, meaning] : entries) text += fmt::format("   <font color=\"{}\">&#9632; {}</font>", color, meaning);
  return text;
}

}  // namespace

std::string drawn(Program original, Program folded, const Report& report) {
  const Fates fates(report);
  const Drawing before(std::move(original), fates, "before");
  const Drawing after(std::move(folded), fates, "after");
  return fmt::format(
      "digraph bnfold {{\n"
      "  graph [label = <{}>, labelloc = t, fontname = Helvetica, bgcolor = white, nodesep = 0.15, ranksep = 0.3];\n"
      "  graph [nslimit = 2, nslimit1 = 2, mclimit = 0.3];\n"
      "  node [shape = box, fontname = Helvetica, fontsize = 10, height = 0.3, margin = \"0.1,0.03\"];\n"
      "  edge [arrowsize = 0.6];\n"
      "{}{}{}}}\n",
      legend(report), before.cluster(), after.cluster(), before.folds(report.merged));
}

std::string to_graphviz(const jit::Module& original, const FoldResult& result) {
  return drawn(flatten(original, {}), flatten(result.module, {}), result.report);
}

}  // namespace bnfold
