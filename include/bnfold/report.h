// What a fold did: every norm that was folded, every norm that was kept and why, and the size of the module before and after.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bnfold {

// The way a norm went to reach the layer that took it: backward into a producer, forward into a consumer, sideways into a sibling.
enum class Direction { backward, forward, sideways };

// Why a norm was kept. `name`, `sentence` and `advice` below give each as text; docs/reasons.md says more.
enum class Reason {
  // The norm itself.
  norm_in_training_mode,
  norm_without_running_statistics,
  norm_parameters_not_static,
  norm_statistics_not_finite,
  norm_channels_disagree,
  // The value that the norm reads.
  value_has_other_readers,
  value_changed_in_place,
  value_from_graph_input,
  value_from_other_block,
  affine_varies_elsewhere,
  rank_unknown,
  // The layer that should take it.
  no_rule_for_operator,
  operand_not_constant,
  weight_not_static,
  weight_dtype_unsupported,
  dtypes_differ,
  devices_differ,
  channels_differ,
  input_not_batched,
  folded_weight_not_finite,
  // The operators that the norm would have to pass.
  operator_not_affine,
  shift_at_padding,
  shift_not_passable,
  scale_not_positive,
  scale_not_invertible,
  mean_too_large,
  sizes_unknown,
  list_not_visible,
  memory_order_unknown,
  value_is_output,
  value_in_container,
  // The fold would be exact, and no gain.
  cheaper_kept,
  widens_channels,
};

// Every reason, in the order of the enum.
const std::vector<Reason>& all_reasons();

// The identifier of a reason, as reports print it: "value_has_other_readers".
std::string_view name(Reason reason);

// One sentence that says what the reason means.
std::string_view sentence(Reason reason);

// What to change in the model, so that the norm may fold, in a sentence or two.
std::string_view advice(Reason reason);

// "backward", "forward" or "sideways".
std::string_view name(Direction direction);

struct FoldedNorm {
  std::string name;  // dotted path of the norm: "layer1.0.bn1"
  Direction direction;
  std::vector<std::string> into;  // dotted paths of the layers that took it
};

// What stopped a norm on one of the ways that were tried.
struct Obstacle {
  std::string way;                  // "backward", "forward", or how scale and shift were to part
  std::vector<std::string> passed;  // the operators on the way that let it pass
  Reason reason;
  std::string detail;
  std::string source;
};

struct KeptNorm {
  std::string name;
  Reason reason;
  std::string detail;               // the operator and the values that the reason is about
  std::string source;               // "file.py:12" of the operator that stood in the way, empty where the module does not tell
  std::vector<Obstacle> obstacles;  // the first one on each way; reason, detail and source above are those of the way backward
};

// The size of a module: elements, bytes and nodes of the inlined graphs.
struct Size {
  int64_t parameters = 0;  // elements of parameters; for a frozen module, of constants
  int64_t buffers = 0;     // elements of buffers
  int64_t bytes = 0;       // of parameters and buffers together
  int64_t nodes = 0;       // of the graphs of every method kept, constants and attribute reads left out
};

// A convolution that became part of another one of the same value, to whose result its own was added.
struct MergedConv {
  std::string name;  // dotted path of the convolution
  std::string into;  // and of the one that took it in
};

struct Report {
  std::vector<FoldedNorm> folded;
  std::vector<KeptNorm> kept;
  std::vector<FoldedNorm> scales;  // constant scales without a norm, as layer scales, that were folded too
  std::vector<MergedConv> merged;
  Size before;
  Size after;

  // A JSON object with the members folded, kept, scales, merged, table (what to_table returns), parameters_before, parameters_after, and the same
  // for buffers, bytes and nodes.
  std::string to_json() const;

  // A table of at most `width` columns that ends in a newline: a line for each figure, for each norm kept, and a count of those folded.
  // `colored` colors it with ANSI escape codes, for a terminal.
  std::string to_table(int width = 100, bool colored = false) const;
};

}  // namespace bnfold
