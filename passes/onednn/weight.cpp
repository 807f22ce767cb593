#include "onednn/weight.h"

#include <cstring>
#include <mutex>
#include <utility>

#include "onednn/orders.h"

namespace bnfold::onednn {

class Weight {
 public:
  Weight(Sizes sizes, const float* numbers) : sizes_(std::move(sizes)), memory_(row_major(sizes_), cpu()) {
    std::memcpy(memory_.get_data_handle(), numbers, memory_.get_desc().get_size());
  }

  const Sizes& sizes() const { return sizes_; }

  dnnl::memory in_order(const Desc& desc) {
    const std::scoped_lock lock(mutex_);
    if (memory_.get_desc() != desc) {
      const dnnl::memory ordered(desc, cpu());
      write_into(ordered);
      memory_ = ordered;
    }
    return memory_;
  }

  void read(float* numbers) const {
    const std::scoped_lock lock(mutex_);
    write_into(dnnl::memory(row_major(dims_of(memory_.get_desc())), cpu(), numbers));
  }

 private:
  // By way of the ordinary order, since oneDNN has no reorder between each two of its own. There the sizes mean nothing.
  void write_into(const dnnl::memory& to) const {
    const Desc ordinary = row_major(dims_of(memory_.get_desc()));
    dnnl::memory between = memory_;
    if (memory_.get_desc() != ordinary) {
      between = dnnl::memory(ordinary, cpu());
      reorder_now(memory_, between);
    }
    reorder_now(dnnl::memory(row_major(dims_of(to.get_desc())), cpu(), between.get_data_handle()), to);
  }

  mutable std::mutex mutex_;
  Sizes sizes_;
  dnnl::memory memory_;
};

WeightPtr make_weight(const Sizes& sizes, const float* numbers) {
  return std::make_shared<Weight>(sizes, numbers);
}

const Sizes& sizes_of(const Weight& weight) {
  return weight.sizes();
}

void read_weight(const Weight& weight, float* numbers) {
  weight.read(numbers);
}

dnnl::memory in_order(Weight& weight, const Desc& desc) {
  return weight.in_order(desc);
}

}  // namespace bnfold::onednn
