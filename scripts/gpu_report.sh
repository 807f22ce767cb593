#!/usr/bin/env bash
# Runs the CUDA tests and measures networks before and after folding on the GPU of this machine, and writes docs/gpu.md with the tables
# and plots in docs/gpu/. With --rehearse the same on the CPU, small and quick, into build/gpu-rehearsal, to see that it works.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'gpu_report: %s\n' "$1" >&2; exit 2; }
case "${1:-}" in
  "") device=cuda page=docs/gpu.md networks=(vgg16_bn resnet50 densenet121 mobilenet_v2 efficientnet_b0)
      options=(--batch 1 8 --dtype float half --memory-format contiguous channels_last --runs 100) graphs=(--cuda-graphs) ;;
  --rehearse) device=cpu page=build/gpu-rehearsal/gpu.md networks=(resnet18 mobilenet_v2)
      options=(--input 3,64,64 --runs 6 --variants original torch.jit.freeze bnfold.fold bnfold.freeze) graphs=() ;;
  *) fail "wants no argument, or --rehearse" ;;
esac
out=${page%.md}

scripts/setup.sh
python=.venv/bin/python
[ "$device" = cpu ] || "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" ||
  fail "PyTorch sees no CUDA device here; scripts/gpu_report.sh --rehearse runs without one"

mkdir -p "$out/cuda_graphs"
echo "==> Tests"
"$python" -m pytest tests/python/test_cuda.py -q -p no:cacheprovider | tee "$out/tests.txt"
[ ! -x build/tests/cuda_tests ] || build/tests/cuda_tests --gtest_brief=1 | tee -a "$out/tests.txt"
echo "==> Latency"
"$python" bench/latency.py "${networks[@]}" --device "$device" "${options[@]}" --out "$out"
echo "==> Latency in CUDA graphs"
"$python" bench/latency.py "${networks[@]}" --device "$device" "${options[@]}" "${graphs[@]}" --out "$out/cuda_graphs" \
  --variants original torch.jit.freeze bnfold.fold bnfold.freeze bnfold.optimize_for_inference
"$python" bench/gpu_report.py "$out" "$page"
