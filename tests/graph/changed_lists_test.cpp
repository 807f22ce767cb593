#include "graph/changed_lists.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>

#include "graph/graph_walk.h"
#include "support/expect.h"
#include "support/model.h"

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

class ChangedLists : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(5); }

  // conv --> u, other --> tanh --> v; then the statements, which make y of them, and a norm of y
  static Model behind(const std::string& statements) {
    Model model;
    model.layer("conv", {4, 3, 1, 1}, 4).layer("other", {4, 3, 1, 1}, 4).norm("norm", 4);
    return model.forward("u = " + conv("conv", "x") + "\nv = torch.tanh(" + conv("other", "x") + ")\n" + statements +
                         "\nreturn " + batch_norm("norm", "y") + " + v.mean()");
  }

  void expect_folded(const std::string& statements) const {
    SCOPED_TRACE(statements);
    EXPECT_EQ(expect_unharmed(behind(statements).module, {x}).report.folded.size(), 1U);
  }

  void expect_kept(const std::string& statements) const {
    SCOPED_TRACE(statements);
    EXPECT_EQ(expect_unharmed(behind(statements).module, {x}).report.kept.size(), 1U);
  }

  const at::Tensor x = at::randn({2, 3, 4, 5}, at::kDouble);
};

TEST_F(ChangedLists, AreReadAsTheyAreThen) {
  for (const char* statements :
       {"l = [v, u]\ny = l.pop()", "l = [u, v]\nl.reverse()\ny = l[1]", "l = [u]\nl.append(v)\ny = l.pop(0)",
        "l = [v]\nl.insert(0, u)\ny = l[0]", "l = [v]\nl.insert(-9, u)\ny = l[0]", "l = [v]\nl.insert(9, u)\ny = l[1]",
        "l = [v, v]\nl[1] = u\ny = l[-1]", "l = [v, u, v]\nl.pop()\nl.pop(0)\ny = l[len(l) - 1]",
        "l = [u, v]\nk = torch.stack(l, 0)\nl.reverse()\ny = l[1]",
        "l = [v]\nl.append(u)\nif len(l) == 2:\n  y = l[1]\nelse:\n  y = v"}) {
    expect_folded(statements);
  }
}

TEST_F(ChangedLists, AreNotReadAsAnotherOneMayLeaveThem) {
  for (const char* statements :
       {"l = [u, v]\nheld = [l, l]\nheld[x.size(0) - 2].reverse()\ny = l[0]",
        "l = [u, v]\nif x.size(0) > 0:\n  l.reverse()\ny = l[0]",
        "l = [u, v]\nfor i in range(x.size(0) - 1):\n  l.reverse()\ny = l[0]", "l = [v, u]\ny = l.pop(x.size(0) - 1)",
        "l = [u]\nl.append(v)\nfor i in range(x.size(0) - 1):\n  l.pop(0)\ny = l[0]"}) {
    expect_kept(statements);
  }
}

// What a list holds where it is made is not what tells a rank, an order or a size where it is read.
TEST_F(ChangedLists, TellNothingWhereSomethingMayChangeThem) {
  for (const char* statements :
       {"order = [0, 1, 2, 3]\nif x.size(0) > 1:\n  order[2] = 3\n  order[3] = 2\ny = u.permute(order)",
        "order = [0, 1, 2, 3]\nheld = [order, order]\nheld[x.size(0) - 2][2] = 3\nheld[x.size(0) - 2][3] = 2\ny = "
        "u.permute(order)",
        "order = [0]\nfor i in range(3):\n  order.append(i + 1)\nif x.size(0) > 1:\n  order[2] = 3\n  order[3] = 2\ny = "
        "u.permute(order)",
        "sizes = [x.size(0), 4, 2, 10]\nheld = [sizes, sizes]\nheld[x.size(0) - 2][2] = 4\nheld[x.size(0) - 2][3] = 5\ny = "
        "u.view(sizes)",
        "kernel = [1, 1]\nheld = [kernel, kernel]\nheld[x.size(0) - 2][0] = 2\ny = torch.max_pool2d(-u, kernel)",
        "p = u.chunk(2, 1)\nheld = [p, p]\nheld[x.size(0) - 2].reverse()\ny = torch.cat([p[0], p[1]], 1)",
        "p = u.split(2, 1)\nheld = [p, p]\nheld[x.size(0) - 2].reverse()\na, b = p\ny = torch.cat([a, b], 1)"}) {
    expect_kept(statements);
  }
}

TEST_F(ChangedLists, ThatGrowInALoopTellNoRank) {
  for (const char* joined : {"torch.cat(l, 1)", "torch.stack(l, 0)[0]"}) {
    const std::string statements =
        "l : List[Tensor] = []\nfor i in range(x.size(0)):\n  l.append(u)\nj = " + std::string(joined) +
        "\nif j.dim() == 4:\n  y = u\nelse:\n  y = v";
    expect_unharmed(behind(statements).module, {x});
  }
}

// ---- the graph

int64_t count(const std::shared_ptr<jit::Graph>& graph, const std::string& kind) {
  int64_t number = 0;
  for_each_node(graph->block(), [&](const jit::Node* node) { number += node->kind().toQualString() == kind ? 1 : 0; });
  return number;
}

std::shared_ptr<jit::Graph> parsed(const std::string& text) {
  auto graph = std::make_shared<jit::Graph>();
  jit::parseIR(text, graph.get());
  return graph;
}

TEST(SpellOutChangedLists, GivesTheListToWhatSeesItThen) {
  const auto graph = parsed(R"(graph(%a : Tensor, %b : Tensor):
  %one : int = prim::Constant[value=1]()
  %l : Tensor[] = prim::ListConstruct(%a)
  %u : Tensor = aten::cat(%l, %one)
  %m : Tensor[] = aten::append(%l, %b)
  %d : Tensor[][] = prim::ListConstruct(%l)
  return (%u, %d))");
  EXPECT_TRUE(spell_out_changed_lists(*graph));
  graph->lint();
  EXPECT_EQ(count(graph, "aten::append"), 0);
  EXPECT_EQ(count(graph, "prim::ListConstruct"), 3);
  EXPECT_FALSE(spell_out_changed_lists(*graph));
}

TEST(SpellOutChangedLists, LeavesAPlaceThatIsComputed) {
  for (const char* use : {"%u : Tensor = aten::pop(%l, %i)", "%u : Tensor = aten::__getitem__(%l, %i)",
                          "aten::insert(%l, %i, %b)\n  %u : Tensor = aten::neg(%a)"}) {
    SCOPED_TRACE(use);
    const auto graph = parsed("graph(%a : Tensor, %b : Tensor, %i : int):\n  %l : Tensor[] = prim::ListConstruct(%a, %b)\n  " +
                              std::string(use) + "\n  %m : Tensor[] = aten::append(%l, %b)\n  return (%u, %l)");
    EXPECT_FALSE(spell_out_changed_lists(*graph));
  }
}

// What it reads in both places is what the list holds then.
TEST(SpellOutChangedLists, LeavesWhatReadsItTwice) {
  const auto graph = parsed(R"(graph(%a : Tensor, %b : Tensor):
  %l : Tensor[] = prim::ListConstruct(%a)
  %twice : Tensor[] = aten::add(%l, %l)
  %m : Tensor[] = aten::append(%l, %b)
  return (%twice, %l))");
  spell_out_changed_lists(*graph);
  for (const jit::Node* node : graph->nodes()) {
    if (node->kind() != jit::aten::add) continue;
    EXPECT_EQ(node->input(0), node->input(1));
  }
}

TEST(SpellOutChangedLists, LeavesAPlaceThatIsNotThere) {
  const auto graph = parsed(R"(graph(%a : Tensor):
  %one : int = prim::Constant[value=1]()
  %l : Tensor[] = prim::ListConstruct(%a)
  %u : Tensor = aten::pop(%l, %one)
  return (%u))");
  EXPECT_FALSE(spell_out_changed_lists(*graph));
}

}  // namespace
}  // namespace bnfold::test
