// Runs a model of one input and one output that export_xla compiled ahead of time: main INPUTS OUTPUTS, both files of
// raw float32 values. Several inputs or outputs go by their names alone, arg_feed_image_data() and
// result_fetch_output_0_data(), because TensorFlow numbers them anew at every export.

#include <cstdio>

#include "model.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s INPUTS OUTPUTS\n", argv[0]);
    return 2;
  }
  PrunedModel model;
  const size_t input_bytes = model.arg0_size();
  std::FILE* inputs = std::fopen(argv[1], "rb");
  if (inputs == nullptr || std::fread(model.arg0_data(), 1, input_bytes, inputs) != input_bytes) {
    std::fprintf(stderr, "%s must hold %zu bytes\n", argv[1], input_bytes);
    return 1;
  }
  std::fclose(inputs);
  if (!model.Run()) {
    std::fprintf(stderr, "%s\n", model.error_msg().c_str());
    return 1;
  }
  const size_t output_bytes = model.result0_size();
  std::FILE* outputs = std::fopen(argv[2], "wb");
  if (outputs == nullptr || std::fwrite(model.result0_data(), 1, output_bytes, outputs) != output_bytes ||
      std::fclose(outputs) != 0) {
    std::fprintf(stderr, "%s cannot be written\n", argv[2]);
    return 1;
  }
  return 0;
}
