// Which values may share memory, and who writes into it.
#include "graph/memory.h"

#include <gtest/gtest.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <string>
#include <unordered_map>

namespace bnfold::test {
namespace {

namespace jit = torch::jit;

// A graph as text, with what its values are called.
struct Parsed {
  explicit Parsed(const std::string& text) { jit::parseIR(text, graph.get(), values); }

  const jit::Value* operator[](const std::string& name) const { return values.at(name); }

  std::shared_ptr<jit::Graph> graph = std::make_shared<jit::Graph>();
  std::unordered_map<std::string, jit::Value*> values;
};

// graph(%x, %z): statements, and a return of %x
Parsed parsed(const std::string& statements) {
  return Parsed("graph(%x : Tensor, %z : Tensor):\n  %one : int = prim::Constant[value=1]()\n  " + statements +
                "\n  return (%x)");
}

TEST(Memory, KnowsOfNoWriteWhereThereIsNone) {
  const Parsed graph = parsed("%y : Tensor = aten::relu(%x)");
  const Memory memory(*graph.graph);
  EXPECT_FALSE(memory.may_be_written(graph["x"]));
  EXPECT_TRUE(memory.is_private(graph["y"]));
  EXPECT_FALSE(memory.is_private(graph["x"]));
}

TEST(Memory, OfAViewIsThatOfItsBase) {
  const Parsed graph = parsed("%y : Tensor = aten::relu(%x)\n  %v : Tensor = aten::t(%y)\n  %w : Tensor = aten::relu_(%v)");
  const Memory memory(*graph.graph);
  for (const char* name : {"y", "v", "w"}) EXPECT_TRUE(memory.may_be_written(graph[name])) << name;
  EXPECT_FALSE(memory.may_be_written(graph["x"]));
}

TEST(Memory, IsNewBehindAnOperatorThatMakesIt) {
  const Parsed graph = parsed("%y : Tensor = aten::relu(%x)\n  %v : Tensor = aten::sigmoid(%y)\n  %w : Tensor = aten::relu_(%v)");
  EXPECT_FALSE(Memory(*graph.graph).may_be_written(graph["y"]));
}

TEST(Memory, OfTwoInputsMayBeOne) {
  const Parsed graph = parsed("%w : Tensor = aten::relu_(%z)");
  EXPECT_TRUE(Memory(*graph.graph).may_be_written(graph["x"]));
}

TEST(Memory, OfAnOperatorThatIsNotListedMayBeThatOfAnyInput) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %l : Tensor[] = prim::ListConstruct(%y)\n  %e : str = prim::Constant[value=\"ij->ji\"]()\n"
      "  %n : NoneType = prim::Constant()\n  %v : Tensor = aten::einsum(%e, %l, %n)\n  %w : Tensor = aten::relu_(%v)");
  EXPECT_TRUE(Memory(*graph.graph).may_be_written(graph["y"]));
}

TEST(Memory, OfWhatADictHoldsIsThatOfItsElements) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %k : str = prim::Constant[value=\"stem\"]()\n  %d : Dict(str, Tensor) = "
      "prim::DictConstruct(%k, %y)\n"
      "  %v : Tensor = aten::__getitem__(%d, %k)\n  %w : Tensor = aten::relu_(%v)");
  EXPECT_TRUE(Memory(*graph.graph).may_be_written(graph["y"]));
}

TEST(Memory, OfTensorsIsNotWrittenByAListThatGrows) {
  const Parsed graph =
      parsed("%y : Tensor = aten::relu(%x)\n  %l : Tensor[] = prim::ListConstruct(%y)\n  %m : Tensor[] = aten::append(%l, %x)");
  const Memory memory(*graph.graph);
  EXPECT_FALSE(memory.may_be_written(graph["y"]));
  EXPECT_TRUE(memory.may_be_written(graph["l"]));
}

TEST(Memory, OfTensorsIsWrittenByWhatWritesIntoAllOfAList) {
  const Parsed graph =
      parsed("%y : Tensor = aten::relu(%x)\n  %l : Tensor[] = prim::ListConstruct(%y)\n  aten::_foreach_mul_(%l, %one)");
  EXPECT_TRUE(Memory(*graph.graph).may_be_written(graph["y"]));
}

TEST(Memory, OfStatisticsIsWrittenByWhatUpdatesThem) {
  const Parsed graph = parsed(
      "%m : Tensor = aten::relu(%z)\n  %v : Tensor = aten::relu(%z)\n  %f : float = prim::Constant[value=0.1]()\n"
      "  %a : Tensor, %b : Tensor = aten::batch_norm_update_stats(%x, %m, %v, %f)");
  const Memory memory(*graph.graph);
  for (const char* name : {"m", "v"}) EXPECT_TRUE(memory.may_be_written(graph[name])) << name;
}

TEST(Memory, OfABranchIsThatOfWhatItReturns) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %c : bool = aten::Bool(%z)\n  %r : Tensor = prim::If(%c)\n    block0():\n      -> (%y)\n  "
      "  block1():\n"
      "      %s : Tensor = aten::sigmoid(%x)\n      -> (%s)\n  %w : Tensor = aten::relu_(%r)");
  const Memory memory(*graph.graph);
  for (const char* name : {"y", "s"}) EXPECT_TRUE(memory.may_be_written(graph[name])) << name;
}

TEST(Memory, IsReadTheSameWhereNothingWritesBetween) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %a : Tensor = aten::sigmoid(%y)\n  %b : Tensor = aten::tanh(%y)\n  %w : Tensor = "
      "aten::relu_(%y)\n"
      "  %d : Tensor = aten::exp(%y)");
  const Memory memory(*graph.graph);
  EXPECT_TRUE(memory.read_the_same(graph["y"], graph["a"]->node(), graph["b"]->node()));
  EXPECT_FALSE(memory.read_the_same(graph["y"], graph["b"]->node(), graph["d"]->node()));
}

TEST(Memory, MayNotBeOverwrittenWhereWhatSharesItIsReadBehind) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %v : Tensor = aten::t(%y)\n  %w : Tensor = aten::relu_(%y)\n  %a : Tensor = "
      "aten::sigmoid(%v)");
  EXPECT_FALSE(Memory(*graph.graph).may_be_overwritten(graph["y"], graph["w"]->node()));
}

TEST(Memory, MayBeOverwrittenWhereWhatSharesItIsReadBefore) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %v : Tensor = aten::t(%y)\n  %a : Tensor = aten::sigmoid(%v)\n  %w : Tensor = "
      "aten::relu_(%y)");
  EXPECT_TRUE(Memory(*graph.graph).may_be_overwritten(graph["y"], graph["w"]->node()));
}

TEST(Memory, OfAnInputMayNotBeOverwritten) {
  const Parsed graph = parsed("%v : Tensor = aten::t(%x)\n  %w : Tensor = aten::relu_(%v)");
  EXPECT_FALSE(Memory(*graph.graph).may_be_overwritten(graph["v"], graph["w"]->node()));
}

TEST(Memory, ThatWentIntoADictMayNotBeOverwritten) {
  const Parsed graph = parsed(
      "%y : Tensor = aten::relu(%x)\n  %k : str = prim::Constant[value=\"stem\"]()\n"
      "  %d : Dict(str, Tensor) = prim::DictConstruct(%k, %y)\n  %w : Tensor = aten::relu_(%y)");
  EXPECT_FALSE(Memory(*graph.graph).may_be_overwritten(graph["y"], graph["w"]->node()));
}

}  // namespace
}  // namespace bnfold::test
