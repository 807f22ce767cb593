// Where a benchmark runs.
#pragma once

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <string>

// Whether the machine has such a device.
inline bool is_there(at::DeviceType device) {
  return device != at::kCUDA || at::hasCUDA();
}

// Waits for what was started on the device.
inline void synchronize(at::DeviceType device) {
  if (device == at::kCUDA) at::detail::getCUDAHooks().deviceSynchronize(0);
}

// As benchmarks are named: "cpu/channels_last".
inline std::string name_of(at::DeviceType device, at::MemoryFormat format) {
  const std::string place = device == at::kCUDA ? "cuda" : "cpu";
  return place + (format == at::MemoryFormat::ChannelsLast ? "/channels_last" : "/contiguous");
}
