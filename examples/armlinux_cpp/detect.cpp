// Prints the boxes that a .nb file finds in an image: score, x1, y1, x2, y2 in pixels, and class. See README.md.
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

#include "lite_detector.h"

namespace {

detector::Image read_image(const std::string& path) {
  int width = 0, height = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(stbi_load(path.c_str(), &width, &height, nullptr, 3),
                                                         stbi_image_free);
  if (!pixels) throw std::runtime_error(path + ": " + stbi_failure_reason());
  return {height, width, {pixels.get(), pixels.get() + static_cast<size_t>(width) * height * 3}};
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL.nb infer_cfg.yml IMAGE\n", arguments[0]);
    return 2;
  }
  try {
    detector::LiteDetector detector(arguments[1], arguments[2]);
    for (const detector::Box& box : detector.detect(read_image(arguments[3]))) {
      std::printf("%.4f %.2f %.2f %.2f %.2f %s\n", box.score, box.x1, box.y1, box.x2, box.y2, box.label.c_str());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
