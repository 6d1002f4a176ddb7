// Prints the boxes that a .nb file finds in an image: score, x1, y1, x2, y2 in pixels, and class. See README.md.
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

#include <cstdio>
#include <memory>

#include "detector.h"
#include "paddle_api.h"  // NOLINT: of the inference library, cxx/include

namespace lite = paddle::lite_api;

namespace {

detector::Image read_image(const std::string& path) {
  int width = 0, height = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load(path.c_str(), &width, &height, nullptr, 3),
                                                         stbi_image_free);
  if (!pixels) throw std::runtime_error(path + ": " + stbi_failure_reason());
  return {height, width, {pixels.get(), pixels.get() + static_cast<size_t>(width) * height * 3}};
}

std::shared_ptr<lite::PaddlePredictor> load(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) throw std::runtime_error(path + ": cannot be read");
  std::string model;
  char part[1 << 16];
  for (size_t length; (length = std::fread(part, 1, sizeof(part), file)) > 0;) model.append(part, length);
  std::fclose(file);
  lite::MobileConfig config;
  config.set_model_from_buffer(model);
  config.set_threads(1);
  config.set_power_mode(lite::LITE_POWER_NO_BIND);
  const auto predictor = lite::CreatePaddlePredictor<lite::MobileConfig>(config);
  if (!predictor) throw std::runtime_error(path + ": Paddle-Lite cannot load it");
  return predictor;
}

template <typename Values>
void set_input(lite::PaddlePredictor* predictor, int index, const lite::shape_t& shape, const Values& values) {
  const std::unique_ptr<lite::Tensor> tensor = predictor->GetInput(index);
  tensor->Resize(shape);
  std::copy(values.begin(), values.end(), tensor->mutable_data<float>());
}

std::vector<detector::Box> detect(lite::PaddlePredictor* predictor, const detector::Image& image,
                                  const detector::Config& config) {
  const std::vector<std::string> names = predictor->GetInputNames();
  for (size_t index = 0; index < names.size(); ++index) {
    if (names[index] == "image") {
      set_input(predictor, index, {1, 3, config.height, config.width}, detector::preprocess(image, config));
    } else if (names[index] == "scale_factor") {
      set_input(predictor, index, {1, 2}, detector::scale_factor(image, config));
    } else {
      throw std::runtime_error("unknown input " + names[index]);
    }
  }
  predictor->Run();
  const std::unique_ptr<const lite::Tensor> output = predictor->GetOutput(0);
  const lite::shape_t shape = output->shape();
  if (shape.size() != 2 || shape[1] != 6) throw std::runtime_error("the first output is no list of boxes");
  return detector::find_boxes(output->data<float>(), static_cast<int>(shape[0]), image, config);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL.nb infer_cfg.yml IMAGE\n", arguments[0]);
    return 2;
  }
  try {
    const detector::Config config = detector::read_config(arguments[2]);
    const detector::Image image = read_image(arguments[3]);
    for (const detector::Box& box : detect(load(arguments[1]).get(), image, config)) {
      std::printf("%.4f %.2f %.2f %.2f %.2f %s\n", box.score, box.x1, box.y1, box.x2, box.y2, box.label.c_str());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
