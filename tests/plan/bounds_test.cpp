#include "plan/bounds.h"

#include "support/fused.h"

namespace bnfold::test {
namespace {

class JoinedBounds : public Fused {
 protected:
  // What becomes of `bounds`, statements that make z of y = conv(x), with the parameters lower and upper [3, 1, 1].
  int64_t clamps(const std::string& bounds) const {
    Model model;
    model.layer("conv", {3, 4, 3, 3}, 3).parameter("lower", at::randn({3, 1, 1})).parameter("upper", at::randn({3, 1, 1}));
    model.forward("y = " + conv("conv", "x", 1) + "\n" + bounds + "\nreturn torch.sigmoid(z)");
    model.module.to(at::kFloat);
    torch::jit::Module optimized = optimize_for_inference(model.module, {x}).module;
    torch::jit::Module original = model.module;
    for (int run = 0; run < 3; ++run) {
      SCOPED_TRACE(bounds);
      expect_near(original.forward({x}).toTensor(), optimized.forward({x}).toTensor());
    }
    EXPECT_EQ(count_nodes(optimized, "aten::contiguous"), 1) << bounds;  // of the output alone
    return count_nodes(optimized, "aten::clamp") + count_nodes(optimized, "aten::clamp_");
  }

  const at::Tensor x = at::randn({2, 4, 7, 6});
};

TEST_F(JoinedBounds, BecomeOne) {
  EXPECT_EQ(clamps("z = torch.minimum(torch.maximum(y, self.lower), self.upper)"), 1);
  EXPECT_EQ(clamps("z = torch.clamp_max(torch.clamp_min(y, self.lower), self.upper)"), 1);
  EXPECT_EQ(clamps("z = y.clamp_min_(self.lower).clamp_max_(self.upper)"), 1);
}

TEST_F(JoinedBounds, StayTwoWhereSomethingReadsBetweenThem) {
  EXPECT_EQ(clamps("u = torch.maximum(y, self.lower)\nz = torch.minimum(u, self.upper) + u"), 0);
}

TEST_F(JoinedBounds, StayTwoWhereSomethingWritesBetweenThem) {
  EXPECT_EQ(clamps("w = torch.exp(x)\nv = w[:, :3]\nu = torch.maximum(v, self.lower)\nv.mul_(2)\nz = torch.minimum(u, "
                   "self.upper) + w[:, :3] + y"),
            0);
}

TEST_F(JoinedBounds, StayTwoInTheOtherOrder) {
  EXPECT_EQ(clamps("z = torch.maximum(torch.minimum(y, self.upper), self.lower)"), 0);
}

TEST_F(JoinedBounds, StayTwoWhereOneIsComputed) {
  EXPECT_EQ(clamps("z = torch.minimum(torch.maximum(y, self.lower), self.upper * x.mean())"), 0);
}

}  // namespace
}  // namespace bnfold::test
