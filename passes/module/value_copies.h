// Copies what the attributes of a module hold.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <unordered_map>

namespace bnfold {

// Whoever copies several values of one module does it with one of these: what was one tensor, list, dict or object is one among the copies
// too, and what lay in one memory does so again.
class ValueCopies {
 public:
  // Copies of what lies in the memory of `tensor` lie there too; all other memory is copied.
  void share_memory_of(const at::Tensor& tensor);

  // `one` is copied as `other` is, which lies in the same place.
  void take_for(const at::Tensor& one, const at::Tensor& other);

  // Objects, modules among them, keep their class. One of a C++ class that can't be copied is shared.
  c10::IValue copy(const c10::IValue& value);

 private:
  at::Tensor copy_tensor(const at::Tensor& tensor);
  at::Tensor without_gradient_history(const at::Tensor& tensor);
  c10::IValue copy_tuple(const c10::IValue& tuple);
  c10::IValue copy_list(const c10::IValue& list);
  c10::IValue copy_dict(const c10::IValue& dict);
  c10::IValue copy_object(const c10::IValue& object);

  std::unordered_map<const c10::TensorImpl*, at::Tensor> tensors_;
  std::unordered_map<const c10::TensorImpl*, at::Tensor> same_;
  std::unordered_map<const c10::StorageImpl*, at::Tensor> storages_;  // tensors over the memory of the copies
  c10::IValue::HashAliasedIValueMap containers_;
};

}  // namespace bnfold
