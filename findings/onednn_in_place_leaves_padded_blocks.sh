#!/usr/bin/env bash
# One would have guessed that a sum or product of oneDNN may be written over its first operand, which its documentation allows, whatever the order in memory.
# In blocks of channels of which the last is not full, and with an activation behind it, that block keeps the operand, in silence. Written into
# other memory it is right, and with full blocks it is right in place.
# A user of a folding tool meets it with gates of few channels, as squeeze and excitation and spatial attention have them, in a runtime that saves memory.
# Seen with oneDNN 2.6.3, as Debian 12 has it, and AVX2: relu(3 * 2) in 12 channels is 6 in eight of them, and 3 in four.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q libdnnl2=2.6.3-1 libdnnl-dev=2.6.3-1 ocl-icd-libopencl1
for package in *.deb; do dpkg -x "$package" root; done
cat > products.cpp << 'CPP'
#include <cstdio>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

using namespace dnnl;

// relu(3 * 2) in 12 channels, of which a block of 8 holds 4 in the second, written over the factor 3 or beside it
void multiply(bool in_place) {
  const engine cpu(engine::kind::cpu, 0);
  stream run(cpu);
  const memory::desc blocks({1, 12, 1, 1}, memory::data_type::f32, memory::format_tag::nChw8c);
  std::vector<float> three(16, 0), two(16, 0), beside(16, 0);
  for (int channel = 0; channel < 12; ++channel) three[channel] = 3, two[channel] = 2;
  post_ops ops;
  ops.append_eltwise(1, algorithm::eltwise_relu, 0, 0);
  primitive_attr attributes;
  attributes.set_post_ops(ops);
  const binary::primitive_desc product({algorithm::binary_mul, blocks, blocks, blocks}, attributes, cpu);
  memory one(blocks, cpu, three.data()), other(blocks, cpu, two.data()), result(blocks, cpu, in_place ? three.data() : beside.data());
  binary(product).execute(run, {{DNNL_ARG_SRC_0, one}, {DNNL_ARG_SRC_1, other}, {DNNL_ARG_DST, result}});
  run.wait();
  const float* numbers = static_cast<const float*>(result.get_data_handle());
  for (int channel = 0; channel < 12; ++channel) std::printf("%g ", numbers[channel]);
  std::printf("\n");
}

int main() {
  multiply(false);
  multiply(true);
}
CPP
libraries=$folder/root/usr/lib/x86_64-linux-gnu
g++ -std=c++17 -isystem root/usr/include products.cpp -L"$libraries" -Wl,-rpath,"$libraries" -Wl,-rpath-link,"$libraries" -ldnnl -o products
seen=$(ONEDNN_MAX_CPU_ISA=AVX2 ./products)
echo "$seen"
[ "$seen" = "6 6 6 6 6 6 6 6 6 6 6 6 
6 6 6 6 6 6 6 6 3 3 3 3 " ]
