// Concatenations of which each begins with the parts of the one before it become views of one tensor.
//
//   before   u = cat([a, b]); ... v = cat([a, b, c])          after   all = empty; all[:, :A] = a; all[:, A:A+B] = b; u = all[:, :A+B]
//                                                                     ... all[:, A+B:] = c; v = all
//
// A block of n parts copies each of them once, where it copied the first one n times. What reads u finishes before c is written beside it.
//
// Conditions  the first one may lie in channels_last, as its parts do: then what reads it is as fast in that order, and nobody sees it
//             at least three concatenations along dimension 1, in one block, each the beginning of the next
//             all parts have four dimensions, one dtype, and one size but for their channels, which are known: they tell where each goes
//             nothing writes into a part, of which a later concatenation would read what it was before
//             the concatenations are read by operators that make memory of their own: a view or a write would reach the others
#include "fuse/concat.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/list_maker.h"
#include "graph/operator_table.h"
#include "graph/operators.h"
#include "graph/order_in_memory.h"

namespace bnfold {

namespace jit = torch::jit;

namespace {

// Fewer are as fast with their own memory.
constexpr size_t kFewest = 3;

using Chain = std::vector<jit::Node*>;

bool is_readable_as_view(const jit::Node* concatenation) {
  const jit::Value* value = concatenation->output();
  return std::all_of(value->uses().begin(), value->uses().end(), [&](const jit::Use& use) {
    return is_step(use.user) || (use.user->kind().is_aten() && !may_return_its_input(use.user) && !writes_into(use.user, value));
  });
}

bool is_part(const jit::Value* part, const jit::Value* whole, const Facts& facts, const Memory& memory) {
  const auto is_one = [&](int64_t dimension) { return facts.have_one_size(part, whole, dimension); };
  return facts.rank_of(part) == 4 && facts.size_of(part, 1) && is_one(0) && is_one(2) && is_one(3) &&
         facts.have_one_dtype(part, whole) && !memory.may_be_written(part);
}

bool can_share(const jit::Node* node, const Facts& facts, const Memory& memory) {
  const auto parts = operator_of(node).shape == Shape::concatenation ? items_of_list(node->input(0)) : std::nullopt;
  if (!parts || constant_int(node->input(1)) != 1 || !is_readable_as_view(node)) return false;
  return std::all_of(parts->begin(), parts->end(),
                     [&](const jit::Value* part) { return is_part(part, node->output(), facts, memory); });
}

bool begins_with(const jit::Node* longer, const jit::Node* shorter) {
  const auto all = longer->input(0)->node()->inputs();
  const auto some = shorter->input(0)->node()->inputs();
  return all.size() > some.size() && longer->owningBlock() == shorter->owningBlock() &&
         std::equal(some.begin(), some.end(), all.begin());
}

std::vector<Chain> chains_of(const jit::Graph& graph, const Facts& facts, const Memory& memory) {
  std::vector<Chain> chains;
  for_each_node(graph.block(), [&](jit::Node* node) {
    if (!can_share(node, facts, memory)) return;
    const auto before =
        std::find_if(chains.begin(), chains.end(), [&](const Chain& chain) { return begins_with(node, chain.back()); });
    if (before != chains.end()) before->push_back(node);
    if (before == chains.end()) chains.push_back({node});
  });
  chains.erase(std::remove_if(chains.begin(), chains.end(), [](const Chain& chain) { return chain.size() < kFewest; }),
               chains.end());
  return chains;
}

class Sharing {
 public:
  Sharing(jit::Graph& graph, const Chain& chain, Facts& facts) : graph_(graph), chain_(chain), facts_(facts) {}

  void apply() {
    const jit::WithInsertPoint before(chain_.front());
    jit::Value* whole = allocate();
    size_t written = 0;
    int64_t channels = 0;
    for (jit::Node* concatenation : chain_) {
      const jit::WithInsertPoint here(concatenation);
      const auto parts = concatenation->input(0)->node()->inputs();
      for (; written < parts.size(); ++written) {
        const int64_t size = *facts_.size_of(parts[written], 1);
        insert(jit::aten::copy_, {narrowed(whole, channels, size), parts[written], graph_.insertConstant(false)});
        channels += size;
      }
      concatenation->output()->replaceAllUsesWith(narrowed(whole, 0, channels));
    }
    facts_.rely_on_sizes(chain_.back()->output(), chain_.back()->owningBlock());
    for (jit::Node* concatenation : chain_) {
      facts_.forget(concatenation->output());
      concatenation->destroy();
    }
  }

 private:
  // empty([N, all channels, H, W]) in channels_last, N, H and W those of the first part.
  jit::Value* allocate() {
    jit::Value* first = chain_.front()->input(0)->node()->input(0);
    std::vector<jit::Value*> sizes;
    for (const int64_t dimension : {0, 2, 3}) {
      sizes.push_back(insert(jit::aten::size, {first, graph_.insertConstant(dimension)}, c10::IntType::get()));
    }
    sizes.insert(sizes.begin() + 1, graph_.insertConstant(*facts_.size_of(chain_.back()->output(), 1)));
    jit::Value* size = graph_.insertNode(graph_.createList(c10::IntType::get(), sizes))->output();
    jit::Value* none = graph_.insertConstant(c10::IValue());
    jit::Value* dtype = insert(jit::prim::dtype, {first}, c10::IntType::get());
    jit::Value* device = insert(jit::prim::device, {first}, c10::DeviceObjType::get());
    jit::Value* format = graph_.insertConstant(static_cast<int64_t>(at::MemoryFormat::ChannelsLast));
    return insert(jit::aten::empty, {size, dtype, none, device, none, format});
  }

  jit::Value* narrowed(jit::Value* whole, int64_t begin, int64_t size) {
    return insert(jit::aten::narrow,
                  {whole, graph_.insertConstant(1), graph_.insertConstant(begin), graph_.insertConstant(size)});
  }

  jit::Value* insert(c10::Symbol kind, at::ArrayRef<jit::Value*> inputs, const c10::TypePtr& type = c10::TensorType::get()) {
    return graph_.insertNode(graph_.create(kind, inputs))->output()->setType(type);
  }

  jit::Graph& graph_;
  const Chain& chain_;
  Facts& facts_;
};

}  // namespace

void share_memory_of_concatenations(jit::Graph& graph, Facts& facts, const Memory& memory,
                                    const std::function<bool(jit::Value*)>& may_lie_in_channels_last) {
  for (const Chain& chain : chains_of(graph, facts, memory)) {
    if (may_lie_in_channels_last(chain.front()->output())) Sharing(graph, chain, facts).apply();
  }
}

}  // namespace bnfold
