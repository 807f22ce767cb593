#include "module/value_copies.h"

#include <ATen/ATen.h>

#include <utility>
#include <vector>

namespace bnfold {

namespace {

// Whether other tensors may be views of its memory that set_ can make.
bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.has_storage() && !tensor.is_quantized() && !tensor.is_neg() &&
         !tensor.is_conj();
}

// Of a C++ class, whose objects are a pointer in a single slot.
bool is_of_cpp_class(const c10::ivalue::Object& object) {
  for (const c10::IValue& slot : object.slots()) {
    if (slot.isCapsule()) return true;
  }
  return false;
}

c10::IValue copied_or_shared(const c10::IValue& value) try { return value.deepcopy(); } catch (const c10::Error&) {
  return value;
}

}  // namespace

void ValueCopies::share_memory_of(const at::Tensor& tensor) {
  if (tensor.defined() && is_plain(tensor)) storages_.emplace(tensor.storage().unsafeGetStorageImpl(), tensor);
}

void ValueCopies::take_for(const at::Tensor& one, const at::Tensor& other) {
  if (!one.is_same(other)) same_.emplace(one.unsafeGetTensorImpl(), other);
}

c10::IValue ValueCopies::copy(const c10::IValue& value) {
  if (value.isTensor()) return value.toTensor().defined() ? copy_tensor(value.toTensor()) : value;
  if (value.isTuple()) return copy_tuple(value);
  if (!value.isList() && !value.isGenericDict() && !value.isObject()) return copied_or_shared(value);
  const auto known = containers_.find(value);
  if (known != containers_.end()) return known->second;
  if (value.isList()) return copy_list(value);
  return value.isObject() ? copy_object(value) : copy_dict(value);
}

at::Tensor ValueCopies::copy_tensor(const at::Tensor& tensor) {
  const auto same = same_.find(tensor.unsafeGetTensorImpl());
  if (same != same_.end()) return copy_tensor(same->second);
  at::Tensor& copy = tensors_[tensor.unsafeGetTensorImpl()];
  if (!copy.defined()) {
    copy = without_gradient_history(tensor);
    // One that was made in inference mode has no gradients whatever it says.
    if (!copy.is_inference()) copy.set_requires_grad(tensor.requires_grad());
  }
  return copy;
}

at::Tensor ValueCopies::without_gradient_history(const at::Tensor& tensor) {
  if (!is_plain(tensor)) return tensor.detach().clone();
  at::Tensor& memory = storages_[tensor.storage().unsafeGetStorageImpl()];
  if (!memory.defined()) memory = at::empty({0}, tensor.options()).set_(tensor.storage()).clone();
  if (memory.storage().is_alias_of(tensor.storage())) return tensor.detach();
  return at::empty({0}, tensor.options()).set_(memory.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
}

c10::IValue ValueCopies::copy_tuple(const c10::IValue& tuple) {
  std::vector<c10::IValue> elements;
  for (const c10::IValue& element : tuple.toTupleRef().elements()) elements.push_back(copy(element));
  const auto type = tuple.type()->expect<c10::TupleType>();
  if (type->schema()) return c10::ivalue::Tuple::createNamed(std::move(elements), type);
  return c10::ivalue::Tuple::create(std::move(elements));
}

c10::IValue ValueCopies::copy_list(const c10::IValue& list) {
  const c10::List<c10::IValue> elements = list.toList();
  const c10::impl::GenericList result(elements.elementType());
  containers_.emplace(list, result);
  for (size_t i = 0; i < elements.size(); ++i) result.push_back(copy(elements.get(i)));
  return result;
}

c10::IValue ValueCopies::copy_dict(const c10::IValue& dict) {
  const c10::Dict<c10::IValue, c10::IValue> entries = dict.toGenericDict();
  const c10::impl::GenericDict result(entries.keyType(), entries.valueType());
  containers_.emplace(dict, result);
  for (const auto& entry : entries) result.insert_or_assign(copy(entry.key()), copy(entry.value()));
  return result;
}

c10::IValue ValueCopies::copy_object(const c10::IValue& object) {
  if (is_of_cpp_class(object.toObjectRef())) return containers_.emplace(object, copied_or_shared(object)).first->second;
  const auto result = object.toObject()->copy();
  containers_.emplace(object, result);
  for (size_t slot = 0; slot < result->slots().size(); ++slot) result->setSlot(slot, copy(result->getSlot(slot)));
  return result;
}

}  // namespace bnfold
