// Where and on what a benchmark runs.
#pragma once

#include <fmt/format.h>

#include <ATen/ATen.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include <string>
#include <vector>

struct Setting {
  at::DeviceType device;
  at::MemoryFormat format;
  int64_t batch;
};

// Every combination that is measured.
inline std::vector<Setting> all_settings() {
  std::vector<Setting> settings;
  for (const auto device : {at::kCPU, at::kCUDA}) {
    for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
      for (const int64_t batch : {1, 8}) settings.push_back({device, format, batch});
    }
  }
  return settings;
}

// As benchmarks are named: "cpu/channels_last/batch:8".
inline std::string name_of(const Setting& setting) {
  return fmt::format("{}/{}/batch:{}", setting.device == at::kCUDA ? "cuda" : "cpu",
                     setting.format == at::MemoryFormat::ChannelsLast ? "channels_last" : "contiguous", setting.batch);
}

// Whether the machine has such a device.
inline bool is_there(at::DeviceType device) {
  return device != at::kCUDA || at::hasCUDA();
}

// Waits for what was started on the device.
inline void synchronize(at::DeviceType device) {
  if (device == at::kCUDA) at::detail::getCUDAHooks().deviceSynchronize(0);
}
