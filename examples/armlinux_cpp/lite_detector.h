// A detector in a .nb file, run by Paddle-Lite's light runtime.
#pragma once

#include <cstdio>
#include <memory>

#include "detector.h"
#include "paddle_api.h"  // NOLINT: of the inference library, cxx/include

namespace detector {

class LiteDetector {
 public:
  // Throws std::runtime_error if a file cannot be used.
  LiteDetector(const std::string& model, const std::string& infer_cfg) : config_(read_config(infer_cfg)) {
    paddle::lite_api::MobileConfig config;
    config.set_model_from_buffer(read_file(model));
    config.set_threads(1);
    config.set_power_mode(paddle::lite_api::LITE_POWER_NO_BIND);
    predictor_ = paddle::lite_api::CreatePaddlePredictor<paddle::lite_api::MobileConfig>(config);
    if (!predictor_) throw std::runtime_error(model + ": Paddle-Lite cannot load it");
  }

  std::vector<Box> detect(const Image& image) {
    const std::vector<std::string> names = predictor_->GetInputNames();
    for (size_t index = 0; index < names.size(); ++index) {
      if (names[index] == "image") {
        set_input(index, {1, 3, config_.height, config_.width}, preprocess(image, config_));
      } else if (names[index] == "scale_factor") {
        set_input(index, {1, 2}, scale_factor(image, config_));
      } else {
        throw std::runtime_error("unknown input " + names[index]);
      }
    }
    predictor_->Run();
    const auto output = predictor_->GetOutput(0);
    const paddle::lite_api::shape_t shape = output->shape();
    if (shape.size() != 2 || shape[1] != 6) throw std::runtime_error("the first output is no list of boxes");
    return find_boxes(output->data<float>(), static_cast<int>(shape[0]), image, config_);
  }

 private:
  static std::string read_file(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (file == nullptr) throw std::runtime_error(path + ": cannot be read");
    std::string content;
    char part[1 << 16];
    for (size_t length; (length = std::fread(part, 1, sizeof(part), file)) > 0;) content.append(part, length);
    std::fclose(file);
    return content;
  }

  template <typename Values>
  void set_input(size_t index, const paddle::lite_api::shape_t& shape, const Values& values) {
    const auto tensor = predictor_->GetInput(static_cast<int>(index));
    tensor->Resize(shape);
    std::copy(values.begin(), values.end(), tensor->mutable_data<float>());
  }

  Config config_;
  std::shared_ptr<paddle::lite_api::PaddlePredictor> predictor_;
};

}  // namespace detector
