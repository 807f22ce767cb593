// What a fold computes must not depend on the modes that its caller is in.
#pragma once

#include <ATen/core/grad_mode.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace bnfold {

// While one lives, this thread computes without gradients, and outside of autocast and inference mode. Every door of the library makes one:
// autocast would round the weights that are folded, and what is made in inference mode could not be trained or written afterwards.
class PlainMode {
  c10::impl::ExcludeDispatchKeyGuard without_autocast_{c10::autocast_dispatch_keyset};
  c10::InferenceMode without_inference_mode_{false};
  at::NoGradGuard without_gradients_;  // behind the inference mode, whose end turns gradients on
};

}  // namespace bnfold
