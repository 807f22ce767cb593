// Steps that run as networks of oneDNN's primitives: an object of TorchScript's, which is saved with the module that it belongs to.
#pragma once

#include <ATen/core/ivalue.h>

#include "onednn/steps.h"

namespace bnfold::onednn {

// An object of the class bnfold.OneDnnSteps, whose method run(Tensor[] inputs) -> Tensor[] does what the steps do.
c10::IValue runner_of(Steps steps);

}  // namespace bnfold::onednn
