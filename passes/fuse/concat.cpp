// Concatenations of which each begins with the parts of the one before it become views of one tensor.
//
//   before   u = cat([a, b]); ... v = cat([a, b, c])          after   all = empty; all[:, :A] = a; all[:, A:A+B] = b; u = all[:, :A+B]
//                                                                     ... all[:, A+B:] = c; v = all
//
// A block of n parts copies each of them once, where it copied the first one n times. What reads u finishes before c is written beside it.
//
// Conditions  at least three concatenations along dimension 1, in one block, each the beginning of the next
//             in the run, all parts had four dimensions and one dtype; their channels tell where each of them goes
//             the concatenations are read by operators that make memory of their own: a view or a write would reach the others
#include "fuse/concat.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "graph/constants.h"
#include "graph/graph_walk.h"
#include "graph/operators.h"

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

const Observed* image_of(const jit::Value* value, const Observations& observed) {
  const auto found = observed.find(value);
  return found != observed.end() && found->second.sizes.size() == 4 ? &found->second : nullptr;
}

bool can_share(const jit::Node* node, const Observations& observed) {
  const bool concatenation = is_one_of(node, {"cat", "concat"}) && node->input(0)->node()->kind() == jit::prim::ListConstruct;
  if (!concatenation || constant_int(node->input(1)) != 1 || !is_readable_as_view(node)) return false;
  const Observed* whole = image_of(node->output(), observed);
  const auto parts = node->input(0)->node()->inputs();
  return whole != nullptr && std::all_of(parts.begin(), parts.end(), [&](const jit::Value* part) {
           const Observed* image = image_of(part, observed);
           return image != nullptr && image->dtype == whole->dtype;
         });
}

bool begins_with(const jit::Node* longer, const jit::Node* shorter) {
  const auto all = longer->input(0)->node()->inputs();
  const auto some = shorter->input(0)->node()->inputs();
  return all.size() > some.size() && longer->owningBlock() == shorter->owningBlock() &&
         std::equal(some.begin(), some.end(), all.begin());
}

std::vector<Chain> chains_of(const jit::Graph& graph, const Observations& observed) {
  std::vector<Chain> chains;
  for_each_node(graph.block(), [&](jit::Node* node) {
    if (!can_share(node, observed)) return;
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
  Sharing(jit::Graph& graph, const Chain& chain, const Observations& observed)
      : graph_(graph), chain_(chain), observed_(observed) {}

  void apply() {
    const jit::WithInsertPoint before(chain_.front());
    jit::Value* whole = allocate();
    size_t written = 0;
    int64_t channels = 0;
    for (jit::Node* concatenation : chain_) {
      const jit::WithInsertPoint here(concatenation);
      const auto parts = concatenation->input(0)->node()->inputs();
      for (; written < parts.size(); ++written) {
        const int64_t size = observed_.at(parts[written]).sizes[1];
        insert(jit::aten::copy_, {narrowed(whole, channels, size), parts[written], graph_.insertConstant(false)});
        channels += size;
      }
      concatenation->output()->replaceAllUsesWith(narrowed(whole, 0, channels));
    }
    for (jit::Node* concatenation : chain_) concatenation->destroy();
  }

 private:
  // empty([N, all channels, H, W]) in channels_last, N, H and W those of the first part.
  jit::Value* allocate() {
    jit::Value* first = chain_.front()->input(0)->node()->input(0);
    std::vector<jit::Value*> sizes;
    for (const int64_t dimension : {0, 2, 3}) {
      sizes.push_back(insert(jit::aten::size, {first, graph_.insertConstant(dimension)}, c10::IntType::get()));
    }
    sizes.insert(sizes.begin() + 1, graph_.insertConstant(observed_.at(chain_.back()->output()).sizes[1]));
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
  const Observations& observed_;
};

}  // namespace

void share_memory_of_concatenations(jit::Graph& graph, const Observations& observed) {
  for (const Chain& chain : chains_of(graph, observed)) Sharing(graph, chain, observed).apply();
}

}  // namespace bnfold
