// Times a .nb file with Paddle-Lite's light runtime. README.md says how to build it, and runner.h what it prints.
#include "paddle_api.h"  // NOLINT: of the inference library, cxx/include
#include "runner.h"

using paddle::lite_api::PaddlePredictor;
using paddle::lite_api::PrecisionType;
using paddle::lite_api::Tensor;

namespace {

paddle::lite_api::PowerMode power_mode(runner::Cluster cluster) {
  switch (cluster) {
    case runner::Cluster::kBig:
      return paddle::lite_api::LITE_POWER_HIGH;
    case runner::Cluster::kLittle:
      return paddle::lite_api::LITE_POWER_LOW;
    default:
      return paddle::lite_api::LITE_POWER_NO_BIND;
  }
}

runner::Output describe(const Tensor& tensor) {
  const runner::Shape shape = tensor.shape();
  const int64_t count = runner::size(shape);
  switch (tensor.precision()) {
    case PrecisionType::kInt32:
      return {shape, runner::mean_magnitude(tensor.data<int32_t>(), count)};
    case PrecisionType::kInt64:
      return {shape, runner::mean_magnitude(tensor.data<int64_t>(), count)};
    case PrecisionType::kFloat:
      return {shape, runner::mean_magnitude(tensor.data<float>(), count)};
    default:
      return {shape, NAN};
  }
}

}  // namespace

int main(int count, char** arguments) {
  const runner::Options options = runner::parse(count, arguments);
  const std::string model = runner::read_model(options);
  paddle::lite_api::MobileConfig config;
  config.set_model_from_buffer(model);
  config.set_threads(options.threads);
  config.set_power_mode(power_mode(options.cluster));
  std::shared_ptr<PaddlePredictor> predictor =
      paddle::lite_api::CreatePaddlePredictor<paddle::lite_api::MobileConfig>(config);
  if (!predictor) runner::fail("Paddle-Lite cannot load " + options.model);

  const size_t inputs = predictor->GetInputNames().size();
  if (inputs != options.inputs.size()) {
    runner::fail(options.model + " has " + std::to_string(inputs) + " inputs: give --input for each, in their order",
                 2);
  }
  const auto set_inputs = [&] {
    for (size_t index = 0; index < inputs; ++index) {
      std::unique_ptr<Tensor> tensor = predictor->GetInput(static_cast<int>(index));
      tensor->Resize(options.inputs[index]);
      runner::fill(tensor->mutable_data<float>(), runner::size(options.inputs[index]));
    }
  };
  const double temperature = runner::temperature();
  const std::vector<double> milliseconds = runner::time(options, set_inputs, [&] { predictor->Run(); });
  std::vector<runner::Output> outputs;
  for (size_t index = 0; index < predictor->GetOutputNames().size(); ++index) {
    outputs.push_back(describe(*predictor->GetOutput(static_cast<int>(index))));
  }
  return runner::report(options, "Paddle-Lite", predictor->GetVersion(), temperature, milliseconds, outputs);
}
