// Which values have the same number of dimensions, or a fixed number more, and what is known of that number.
//
// A fact holds in the runs that reach the block it was read in. So a value is one member of the block that makes it, and another one of each
// inner block that reads it: what is known outside holds inside too, but what an inner block tells, which may not run, stays there.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <unordered_map>
#include <vector>

namespace bnfold {

// How sure a fact is, the surest first. Where two facts make a third one, it is no surer than either.
enum class Strength {
  proven,   // by operators that raise otherwise, or by a check in the code
  hinted,   // by example inputs or a trace
  assumed,  // of what usually runs: a batch dimension in front
};

// A number of dimensions.
struct Rank {
  int64_t number;
  Strength strength;
};

// What is known of one number of dimensions.
struct RankFacts {
  int64_t least = 0;  // proven
  int64_t most = std::numeric_limits<int32_t>::max();
  std::optional<int64_t> hinted;
  std::optional<int64_t> assumed;

  // The strongest of them, as long as it is within what is proven.
  std::optional<Rank> rank() const;

  // The facts of a number that is larger by `difference`.
  RankFacts shifted(int64_t difference) const;
};

class RankClasses {
 public:
  using Member = size_t;

  // The member that `value` is in `block`, which is its own block or one inside.
  Member member(const torch::jit::Value* value, const torch::jit::Block* block);

  // rank(other) = rank(one) + difference, in all runs that reach their block.
  void tie(Member one, Member other, int64_t difference = 0);

  // What is proven, hinted or assumed of the rank of a member.
  void narrow(Member member, int64_t least, int64_t most);
  void learn(Member member, int64_t rank, Strength strength);

  // rank(result) is the largest of rank(source) + difference and `floor`. With `alike`, every source of 2 or more dimensions has it.
  struct Largest {
    struct Source {
      Member member;
      int64_t difference = 0;
    };
    std::vector<Source> sources;
    Member result;
    int64_t floor = 0;
    bool alike = false;
  };
  void relate(Largest largest) { largest_.push_back(std::move(largest)); }

  // rank(result) is that of `first` and of `second`, which are equal; or, where the rank of `value` decides, that of the one that it takes.
  struct Chosen {
    struct Decider {
      Member value;
      int64_t rank;
      bool takes_first;  // whether this rank takes the first one, and every other rank the second, or the other way round
    };
    Member first;
    Member second;
    Member result;
    std::optional<Decider> decider = {};
  };
  void relate(const Chosen& chosen) { chosen_.push_back(chosen); }

  // rank(result) is that of the product of two tensors, of which one may be a vector and adds no dimension.
  struct Product {
    Member first;
    Member second;
    Member result;
  };
  void relate(const Product& product) { products_.push_back(product); }

  // rank(result) is at most rank(source) + difference, and is that where it is proven to be no smaller.
  struct Bounded {
    Member source;
    int64_t difference;
    Member result;
  };
  void relate(const Bounded& bounded) { bounded_.push_back(bounded); }

  // Draws all conclusions from what was told.
  void settle();

  // What is known of the rank of `value` in the runs that reach `block`.
  RankFacts facts(const torch::jit::Value* value, const torch::jit::Block* block) const;

  // Among the values that `block` can read, as it can `value`, the first one whose rank tells that of `value` there:
  // rank(value) = rank(witness) + difference.
  struct Witness {
    torch::jit::Value* value;
    int64_t difference;
  };
  Witness witness(const torch::jit::Value* value, const torch::jit::Block* block) const;

  // Takes note that `value` is new and has the rank of `like`, and that `value` is gone.
  void adopt(const torch::jit::Value* value, const torch::jit::Value* like);
  void forget(const torch::jit::Value* value);

 private:
  // rank(member) = rank(of another one) + difference
  struct Relation {
    Member member;
    int64_t difference;
  };
  struct Entry {
    const torch::jit::Value* value;  // null where it is gone
    const torch::jit::Block* block;
    Relation parent;                // in its class; that of the root is itself
    size_t size = 1;                // of the class, at its root
    RankFacts facts;                // of the root's rank, at the root
    std::vector<Relation> outside;  // at the root: members of outer blocks, by which the root's rank is larger
  };

  Relation root(Member member) const;
  bool merge(Member one, Member other, int64_t difference);
  bool conclude(const Largest& largest);
  bool conclude(const Chosen& chosen);
  bool conclude(const Product& product);
  bool conclude(const Bounded& bounded);
  bool learn_anew(Member member, const Rank& rank);
  bool join_imports();
  RankFacts facts(Member member) const;
  std::optional<Relation> find(const torch::jit::Value* value, const torch::jit::Block* block) const;

  std::vector<Entry> entries_;
  std::unordered_map<const torch::jit::Value*, std::vector<Member>> members_of_;
  struct Import {
    Member inner;
    Member outer;
  };
  std::unordered_map<const torch::jit::Block*, std::vector<Import>> imports_;  // of the values from outside that a block reads
  std::vector<const torch::jit::Block*> importing_;                            // in the order of the graph, outer blocks first
  std::vector<Largest> largest_;
  std::vector<Chosen> chosen_;
  std::vector<Product> products_;
  std::vector<Bounded> bounded_;
};

}  // namespace bnfold
