#!/usr/bin/env bash
# One would have guessed that the post-ops of a primitive of oneDNN are applied one after the other, each with numbers of its own.
# Two of one kind, as a bound of a bound, share their numbers: the first ones are used for both, in silence. The same was seen with two slopes of
# leaky ReLU and behind convolutions.
# A user of a folding tool meets it where a norm and ReLU6 behind another bound became bounds, and a runtime puts all of them into the layer's step. Give
# each step one of a kind.
# Seen with oneDNN 2.6.3, as Debian 12 has it, and AVX2: -0.2 -0.2 -0.1 0.1 0.5 2 4 4 where 0 0 0 0.1 0.5 2 4 4 is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q libdnnl2=2.6.3-1 libdnnl-dev=2.6.3-1 ocl-icd-libopencl1
for package in *.deb; do dpkg -x "$package" root; done
cat > bounds.cpp << 'CPP'
#include <cstdio>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

using namespace dnnl;

// numbers + 0, then a bound from `first`, then one from `second`
std::vector<float> bounded(std::vector<float> numbers, std::pair<float, float> first, std::pair<float, float> second) {
  const engine cpu(engine::kind::cpu, 0);
  stream run(cpu);
  const memory::desc desc({1, 8, 1, 1}, memory::data_type::f32, memory::format_tag::nChw8c);
  std::vector<float> zeros(8), result(8);
  post_ops ops;
  ops.append_eltwise(1, algorithm::eltwise_clip, first.first, first.second);
  ops.append_eltwise(1, algorithm::eltwise_clip, second.first, second.second);
  primitive_attr attributes;
  attributes.set_post_ops(ops);
  const binary::primitive_desc sum({algorithm::binary_add, desc, desc, desc}, attributes, cpu);
  memory one(desc, cpu, numbers.data()), other(desc, cpu, zeros.data()), to(desc, cpu, result.data());
  binary(sum).execute(run, {{DNNL_ARG_SRC_0, one}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, to}});
  run.wait();
  return result;
}

int main() {
  const std::vector<float> numbers = {-3, -0.5, -0.1, 0.1, 0.5, 2, 5, 9};
  for (const float number : bounded(numbers, {-0.2F, 4}, {0, 6})) std::printf("%g ", number);
  std::printf("\n");
  for (const float number : bounded(numbers, {0, 6}, {-0.2F, 4})) std::printf("%g ", number);
  std::printf("\n");
}
CPP
libraries=$folder/root/usr/lib/x86_64-linux-gnu
g++ -std=c++17 -isystem root/usr/include bounds.cpp -L"$libraries" -Wl,-rpath,"$libraries" -Wl,-rpath-link,"$libraries" -ldnnl -o bounds
seen=$(ONEDNN_MAX_CPU_ISA=AVX2 ./bounds)
echo "$seen"
[ "$seen" = "-0.2 -0.2 -0.1 0.1 0.5 2 4 4 
0 0 0 0.1 0.5 2 5 6 " ]
