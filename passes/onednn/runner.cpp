#include "onednn/runner.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/custom_class.h>

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>

#include "graph/order_in_memory.h"
#include "onednn/lower.h"
#include "onednn/network.h"

namespace bnfold::onednn {

namespace {

// Made anew for each size of the inputs, and kept. Where oneDNN has no primitive, or an input is no float tensor on the CPU, LibTorch's operators
// run one after the other. May run in several threads at once.
class Runner : public torch::CustomClassHolder {
 public:
  using State = std::tuple<std::string, std::vector<at::Tensor>>;

  explicit Runner(Steps steps) : steps_(std::move(steps)) {}

  std::vector<at::Tensor> run(const std::vector<at::Tensor>& inputs);

  // For how many sizes there is a network.
  int64_t networks();

  State state() const;
  static c10::intrusive_ptr<Runner> from(const State& state);

 private:
  using Key = std::vector<int64_t>;  // threads, then for each input its order, its rank and its sizes
  static std::optional<Key> key_of(const std::vector<at::Tensor>& inputs);
  std::shared_ptr<const Network> network_for(const Key& key, const std::vector<at::Tensor>& inputs);
  std::shared_ptr<const Network> new_network(const std::vector<at::Tensor>& inputs) const;

  Steps steps_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<const Network>> networks_;  // null where there is none
};

// Of sizes that change with every run, as those of detected objects, the first alone get a network.
constexpr size_t kMostNetworks = 16;

bool is_plain_float(const at::Tensor& tensor) {
  return tensor.defined() && tensor.scalar_type() == at::kFloat && tensor.is_cpu() && tensor.layout() == at::kStrided &&
         !tensor.is_neg() && tensor.dim() != 0;
}

void warn(const std::exception& failure) {
  TORCH_WARN("oneDNN can't compute this network, and LibTorch's operators run instead: ", failure.what());
}

std::optional<Runner::Key> Runner::key_of(const std::vector<at::Tensor>& inputs) {
  Key key = {at::get_num_threads()};
  for (const at::Tensor& input : inputs) {
    if (!is_plain_float(input)) return std::nullopt;
    key.insert(key.end(), {is_channels_last(input), input.dim()});
    key.insert(key.end(), input.sizes().begin(), input.sizes().end());
  }
  return key;
}

std::shared_ptr<const Network> Runner::new_network(const std::vector<at::Tensor>& inputs) const {
  std::vector<Input> described;
  for (const at::Tensor& input : inputs) {
    described.push_back({input.sizes().vec(), is_channels_last(input) ? Order::channels_last : Order::contiguous});
  }
  auto description = lower(steps_, described);
  if (!description) return nullptr;
  try {
    return std::make_shared<const Network>(std::move(*description));
  } catch (const std::exception& failure) {
    warn(failure);
    return nullptr;
  }
}

std::shared_ptr<const Network> Runner::network_for(const Key& key, const std::vector<at::Tensor>& inputs) {
  const std::scoped_lock lock(mutex_);
  const auto found = networks_.find(key);
  if (found != networks_.end()) return found->second;
  return networks_.size() == kMostNetworks ? nullptr : networks_[key] = new_network(inputs);
}

int64_t Runner::networks() {
  const std::scoped_lock lock(mutex_);
  return std::count_if(networks_.begin(), networks_.end(), [](const auto& one) { return one.second != nullptr; });
}

// Inputs in another order than the two that are described are copied.
std::vector<at::Tensor> compute(const Network& network, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> dense;
  std::vector<const float*> read;
  for (const at::Tensor& input : inputs) {
    dense.push_back(is_channels_last(input) ? input : input.contiguous());
    read.push_back(dense.back().const_data_ptr<float>());
  }
  std::vector<at::Tensor> outputs;
  std::vector<float*> written;
  for (const Sizes& sizes : network.output_sizes()) {
    outputs.push_back(at::empty(sizes, at::kFloat));
    written.push_back(outputs.back().data_ptr<float>());
  }
  network.run(read, written);
  return outputs;
}

std::vector<at::Tensor> Runner::run(const std::vector<at::Tensor>& inputs) {
  const auto key = key_of(inputs);
  const auto network = key ? network_for(*key, inputs) : nullptr;
  if (!network) return steps_.run(inputs);
  try {
    return compute(*network, inputs);
  } catch (const std::exception& failure) {
    warn(failure);
    const std::scoped_lock lock(mutex_);
    networks_[*key] = nullptr;
  }
  return steps_.run(inputs);
}

Runner::State Runner::state() const {
  std::vector<at::Tensor> weights;
  for (const WeightPtr& weight : steps_.weights) weights.push_back(tensor_of(*weight));
  return {steps_.text(), std::move(weights)};
}

c10::intrusive_ptr<Runner> Runner::from(const State& state) {
  std::vector<WeightPtr> weights;
  for (const at::Tensor& weight : std::get<1>(state)) weights.push_back(weight_of(weight));
  return c10::make_intrusive<Runner>(Steps::read(std::get<0>(state), std::move(weights)));
}

const auto registered = torch::class_<Runner>("bnfold", "OneDnnSteps")
                            .def("run", [](const c10::intrusive_ptr<Runner>& self,
                                           const std::vector<at::Tensor>& inputs) { return self->run(inputs); })
                            .def("networks", [](const c10::intrusive_ptr<Runner>& self) { return self->networks(); })
                            .def_pickle([](const c10::intrusive_ptr<Runner>& self) { return self->state(); },
                                        [](Runner::State state) { return Runner::from(state); });

}  // namespace

c10::IValue runner_of(Steps steps) {
  return c10::IValue(c10::make_intrusive<Runner>(std::move(steps)));
}

}  // namespace bnfold::onednn
