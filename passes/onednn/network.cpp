#include "onednn/network.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <utility>

#include "onednn/program.h"

namespace bnfold::onednn {

namespace {

struct Free {
  void operator()(void* bytes) const { std::free(bytes); }
};

// What one run needs for itself.
class Execution {
 public:
  Execution(const Program& program, size_t inputs, size_t outputs)
      : memory_(std::aligned_alloc(kAlignment, std::max(program.memory, kAlignment))), inputs_(inputs), outputs_(outputs) {
    if (!memory_) throw std::bad_alloc();
    for (const Primitive& primitive : program.primitives) {
      std::unordered_map<int, dnnl::memory> arguments;
      for (const Argument& argument : primitive.arguments) {
        arguments.emplace(argument.role, memory_for(program.buffers[argument.place.buffer], argument.place));
      }
      primitives_.emplace_back(primitive.primitive, std::move(arguments));
    }
  }

  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs) {
    for (size_t i = 0; i < inputs.size(); ++i) point(inputs_[i], const_cast<float*>(inputs[i]));
    for (size_t i = 0; i < outputs.size(); ++i) point(outputs_[i], outputs[i]);
    for (auto& [primitive, arguments] : primitives_) primitive.execute(stream_, arguments);
    stream_.wait();
  }

 private:
  static void point(std::vector<dnnl::memory>& memories, void* numbers) {
    for (dnnl::memory& memory : memories) memory.set_data_handle(numbers);
  }

  dnnl::memory memory_for(const Buffer& buffer, const Place& place) {
    if (buffer.kind == Buffer::Kind::constant) return *buffer.constant;
    if (buffer.kind == Buffer::Kind::between)
      return {place.desc, cpu(), static_cast<char*>(memory_.get()) + buffer.offset + place.offset};
    auto& outside = (buffer.kind == Buffer::Kind::input ? inputs_ : outputs_)[buffer.number];
    outside.emplace_back(place.desc, cpu(), nullptr);
    return outside.back();
  }

  std::unique_ptr<void, Free> memory_;
  std::vector<std::pair<dnnl::primitive, std::unordered_map<int, dnnl::memory>>> primitives_;
  std::vector<std::vector<dnnl::memory>> inputs_, outputs_;  // of each, as the primitives that use it see it
  dnnl::stream stream_{cpu()};
};

}  // namespace

// As many as have run at once.
class Network::Executions {
 public:
  explicit Executions(Description description) {
    description.fuse();
    program_ = program_of(description);
    lay_out(program_);
    inputs_ = description.inputs().size();
    for (const Value output : description.outputs()) sizes_.push_back(description.sizes_of(output));
    waiting_.push_back(std::make_unique<Execution>(program_, inputs_, sizes_.size()));
  }

  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs) {
    std::unique_ptr<Execution> execution = taken();
    execution->run(inputs, outputs);
    const std::scoped_lock lock(mutex_);
    waiting_.push_back(std::move(execution));
  }

  const std::vector<Sizes>& sizes() const { return sizes_; }

 private:
  std::unique_ptr<Execution> taken() {
    {
      const std::scoped_lock lock(mutex_);
      if (!waiting_.empty()) {
        auto execution = std::move(waiting_.back());
        waiting_.pop_back();
        return execution;
      }
    }
    return std::make_unique<Execution>(program_, inputs_, sizes_.size());
  }

  Program program_;
  size_t inputs_;
  std::vector<Sizes> sizes_;  // of the outputs
  std::mutex mutex_;
  std::vector<std::unique_ptr<Execution>> waiting_;
};

Network::Network(Description description) : executions_(std::make_unique<Executions>(std::move(description))) {}
Network::~Network() = default;

const std::vector<Sizes>& Network::output_sizes() const {
  return executions_->sizes();
}

void Network::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs) const {
  executions_->run(inputs, outputs);
}

}  // namespace bnfold::onednn
