#!/usr/bin/env bash
# Links main.cc with a network that export_xla compiled ahead of time:
#   build.sh TENSORFLOW_PACKAGE AHEAD_OF_TIME_DIRECTORY PROGRAM
# Headers, the sources of XLA's runtime and Abseil (in libtensorflow_framework) are those of TensorFlow's wheel. A dense
# network takes ten seconds; convolutions come from Eigen's templates, which take two minutes.
set -euo pipefail
tensorflow=$1 model=$2 program=$3
runtime=$tensorflow/xla_aot_runtime_src
sources=(
  "$runtime/tensorflow/compiler/tf2xla/xla_compiled_cpu_function.cc"
  "$runtime/tensorflow/compiler/tf2xla/allocator.cc"
  "$runtime/xla/executable_run_options.cc"
  "$runtime/xla/backends/cpu/runtime/rng_state_lib.cc"
)
if grep -q convolution_lib.h "$model/model.h"; then
  sources+=("$runtime"/xla/backends/cpu/runtime/convolution_lib_f32_2d.cc "$runtime"/xla/tsl/concurrency/*.cc)
fi
g++ -std=c++17 -O1 -w -I"$tensorflow/include" -I"$model" \
  "$(dirname "$0")/main.cc" "$model/model.o" "$model/model_constants.o" "${sources[@]}" \
  -L"$tensorflow" -l:libtensorflow_framework.so.2 -Wl,-rpath,"$tensorflow" -o "$program"
