// Times a .mnn file with MNN in FP32. README.md says how to build it, and runner.h what it prints.
#include <MNN/Interpreter.hpp>

#include <memory>

#include "runner.h"

namespace {

MNN::BackendConfig::PowerMode power_mode(runner::Cluster cluster) {
  switch (cluster) {
    case runner::Cluster::kBig:
      return MNN::BackendConfig::Power_High;
    case runner::Cluster::kLittle:
      return MNN::BackendConfig::Power_Low;
    default:
      return MNN::BackendConfig::Power_Normal;
  }
}

runner::Shape shape_of(const MNN::Tensor& tensor) {
  const std::vector<int> shape = tensor.shape();
  return runner::Shape(shape.begin(), shape.end());
}

}  // namespace

int main(int count, char** arguments) {
  const runner::Options options = runner::parse(count, arguments);
  const std::string model = runner::read_model(options);
  std::unique_ptr<MNN::Interpreter> interpreter(MNN::Interpreter::createFromBuffer(model.data(), model.size()));
  if (!interpreter) runner::fail("MNN cannot load " + options.model);
  MNN::BackendConfig backend;
  backend.power = power_mode(options.cluster);
  backend.precision = MNN::BackendConfig::Precision_High;  // a lower one computes in FP16, without sparse kernels
  MNN::ScheduleConfig schedule;
  schedule.type = MNN_FORWARD_CPU;
  schedule.numThread = options.threads;
  schedule.backendConfig = &backend;
  MNN::Session* session = interpreter->createSession(schedule);
  if (session == nullptr) runner::fail("MNN cannot create a session for " + options.model);

  const auto set_inputs = [&] {
    for (const auto& input : interpreter->getSessionInputAll(session)) {  // the file has their shapes
      std::unique_ptr<MNN::Tensor> host(MNN::Tensor::createHostTensorFromDevice(input.second, false));
      runner::fill(host->host<float>(), runner::size(shape_of(*host)));
      input.second->copyFromHostTensor(host.get());
    }
  };
  const double temperature = runner::temperature();
  const std::vector<double> milliseconds = runner::time(options, set_inputs, [&] {
    if (interpreter->runSession(session) != MNN::NO_ERROR) runner::fail("MNN cannot run " + options.model);
  });
  std::vector<runner::Output> outputs;
  for (const auto& output : interpreter->getSessionOutputAll(session)) {
    std::unique_ptr<MNN::Tensor> host(MNN::Tensor::createHostTensorFromDevice(output.second, true));
    const runner::Shape shape = shape_of(*host);
    outputs.push_back({shape, runner::mean_magnitude(host->host<float>(), runner::size(shape))});
  }
  return runner::report(options, "MNN", MNN::getVersion(), temperature, milliseconds, outputs);
}
