// Where each value lies in the memory between the steps of a network.
#include <algorithm>

#include "onednn/program.h"

namespace bnfold::onednn {

namespace {

bool are_used_at_once(const Buffer& one, const Buffer& other) {
  return one.first <= other.last && other.first <= one.last;
}

// The lowest place for `size` bytes beside these, which are ordered by their places.
size_t free_place(size_t size, const std::vector<const Buffer*>& taken) {
  size_t place = 0;
  for (const Buffer* buffer : taken) {
    if (place + size <= buffer->offset) break;
    place = std::max(place, buffer->offset + buffer->size);
  }
  return place;
}

}  // namespace

// The largest first: what is small fits into the gaps.
void lay_out(Program& program) {
  std::vector<Buffer*> order;
  for (Buffer& buffer : program.buffers) {
    if (buffer.kind == Buffer::Kind::between) order.push_back(&buffer);
  }
  std::sort(order.begin(), order.end(), [](const Buffer* one, const Buffer* other) { return one->size > other->size; });
  std::vector<const Buffer*> placed;  // by their places
  for (Buffer* buffer : order) {
    buffer->size = (buffer->size + kAlignment - 1) / kAlignment * kAlignment;
    std::vector<const Buffer*> beside;
    std::copy_if(placed.begin(), placed.end(), std::back_inserter(beside),
                 [buffer](const Buffer* other) { return are_used_at_once(*buffer, *other); });
    buffer->offset = free_place(buffer->size, beside);
    program.memory = std::max(program.memory, buffer->offset + buffer->size);
    const auto place = std::upper_bound(placed.begin(), placed.end(), buffer,
                                        [](const Buffer* one, const Buffer* other) { return one->offset < other->offset; });
    placed.insert(place, buffer);
  }
}

}  // namespace bnfold::onednn
