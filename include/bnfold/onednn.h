// Networks of oneDNN's primitives, which Runtime::onednn makes, for a program that makes, loads or runs them: link bnfold::onednn, and
//
//     bnfold::load_onednn();
//     torch::jit::Module module = torch::jit::load("optimized.pt");
#pragma once

namespace bnfold {

#pragma GCC visibility push(default)
// Does nothing but to be called: a linker may leave out a library of which nothing is.
void load_onednn();
#pragma GCC visibility pop

}  // namespace bnfold
