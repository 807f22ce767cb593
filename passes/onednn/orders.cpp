#include "onednn/orders.h"

#include <functional>
#include <numeric>
#include <utility>

namespace bnfold::onednn {

namespace {

using Tag = dnnl::memory::format_tag;
constexpr auto kFloat = dnnl::memory::data_type::f32;

std::vector<Tag> orders_by_channels(size_t rank) {
  if (rank == 4) return {Tag::nChw16c, Tag::nChw8c, Tag::nhwc};
  if (rank == 5) return {Tag::nCdhw16c, Tag::nCdhw8c, Tag::ndhwc};
  return {};
}

}  // namespace

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

Desc row_major(const Sizes& sizes) {
  Sizes strides(sizes.size(), 1);
  for (size_t i = sizes.size() - 1; i-- > 0;) strides[i] = strides[i + 1] * sizes[i + 1];
  return {sizes, kFloat, strides};
}

Desc channels_last(const Sizes& sizes) {
  return {sizes, kFloat, sizes.size() == 4 ? Tag::nhwc : Tag::ndhwc};
}

Desc any_order(const Sizes& sizes) {
  return {sizes, kFloat, Tag::any};
}

Sizes dims_of(const Desc& desc) {
#if DNNL_VERSION_MAJOR == 2
  return desc.dims();
#else
  return desc.get_dims();
#endif
}

Desc like(const Desc& desc, const Sizes& sizes) {
  const Sizes own = dims_of(desc);
  if (own.size() == sizes.size()) {
    for (const Tag tag : orders_by_channels(own.size())) {
      if (Desc(own, kFloat, tag) == desc) return {sizes, kFloat, tag};
    }
  }
  return row_major(sizes);
}

bool is_padded(const Desc& desc) {
  const Sizes sizes = dims_of(desc);
  const int64_t numbers = std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
  return desc.get_size() != numbers * sizeof(float);
}

int64_t channels_of_block(const Desc& desc) {
  const Sizes sizes = dims_of(desc);
  const std::vector<Tag> tags = orders_by_channels(sizes.size());
  for (size_t i = 0; i + 1 < tags.size(); ++i) {
    if (Desc(sizes, kFloat, tags[i]) == desc) return i == 0 ? 16 : 8;
  }
  return 0;
}

void reorder_now(dnnl::memory from, dnnl::memory to) {
  dnnl::stream stream(cpu());
  dnnl::reorder(from, to).execute(stream, from, to);
  stream.wait();
}

}  // namespace bnfold::onednn
