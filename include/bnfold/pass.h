// Folding as a part of TorchScript's own optimization: a pass of the graph executor.
//
// While it is registered, a module that is frozen (its weights are constants of the graph) is folded when the executor optimizes it, which
// it does in one of the first runs, once for each specialization. So what torch::jit::freeze left over, or what a file holds that was
// frozen long ago, runs without its norms; the module itself, its graph and its file stay as they are. A module that was optimized before
// the pass was registered stays optimized as it is.
//
// Modules that are not frozen are left alone: their weights may change from call to call.
#pragma once

namespace bnfold {

// Adds the pass to those that the executor runs before it fuses; nothing where it is there already. The executor's list is not locked:
// call this before other threads run modules.
void register_pass();

// Takes the pass out again; what was optimized with it stays so.
void unregister_pass();

bool pass_is_registered();

}  // namespace bnfold
