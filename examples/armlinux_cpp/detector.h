// From an image to the inputs of a detector, and from its outputs to boxes, by the constants in infer_cfg.yml.
//
// The file is written by the export, in the format of PaddleDetection's deploy tools. Nothing here needs Paddle-Lite.
#pragma once

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace detector {

struct Image {
  int height, width;
  std::vector<uint8_t> pixels;  // RGB, row by row
};

struct Config {
  int height = 0, width = 0;  // of the network's input
  int interpolation = 0;      // OpenCV's number: 1 linear, 2 cubic
  float scale = 1.0f;         // multiplies the pixels before mean and std are applied
  std::vector<float> mean{0, 0, 0}, std{1, 1, 1};
  float threshold = 0.5f;  // the least score of a box that is shown
  std::vector<std::string> labels;
};

struct Box {
  std::string label;
  float score;
  float x1, y1, x2, y2;  // pixels of the image, within it
};

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::runtime_error("infer_cfg.yml: " + message);
}

// Reads infer_cfg.yml. Throws std::runtime_error.
inline Config read_config(const std::string& path) try {
  const YAML::Node file = YAML::LoadFile(path);
  require(file["arch"].as<std::string>() == "GFL", "export the model with its post-processing and NMS");
  Config config;
  config.threshold = file["draw_threshold"].as<float>();
  config.labels = file["label_list"].as<std::vector<std::string>>();
  for (const YAML::Node& step : file["Preprocess"]) {
    const std::string type = step["type"].as<std::string>();
    if (type == "Resize") {
      const auto size = step["target_size"].as<std::vector<int>>();
      require(size.size() == 2 && size[0] > 0 && size[1] > 0, "target_size must be height and width");
      require(!step["keep_ratio"].as<bool>(), "keep_ratio is not supported here");
      config.height = size[0], config.width = size[1];
      config.interpolation = step["interp"].as<int>();
      require(config.interpolation == 1 || config.interpolation == 2, "interp must be 1 (linear) or 2 (cubic)");
    } else if (type == "NormalizeImage") {
      require(step["norm_type"].as<std::string>("mean_std") == "mean_std", "norm_type must be mean_std");
      config.scale = step["is_scale"].as<bool>(true) ? 1.0f / 255.0f : 1.0f;
      config.mean = step["mean"].as<std::vector<float>>();
      config.std = step["std"].as<std::vector<float>>();
      require(config.mean.size() == 3 && config.std.size() == 3, "mean and std must have three values");
    } else {
      require(type == "Permute", type + " is not supported here");
    }
  }
  require(config.height > 0, "Preprocess has no Resize");
  return config;
} catch (const YAML::Exception& error) {
  throw std::runtime_error(path + ": " + error.what());
}

// For each position of a resized row or column, the four source positions and their weights.
struct Tap {
  std::array<int, 4> from;
  std::array<float, 4> weight;
};

inline std::vector<Tap> make_taps(int source, int target, int interpolation) {
  std::vector<Tap> taps(target);
  for (int position = 0; position < target; ++position) {
    const double center = (position + 0.5) * source / target - 0.5;
    const int first = static_cast<int>(std::floor(center));
    const float x = static_cast<float>(center - first);
    Tap& tap = taps[position];
    for (int index = 0; index < 4; ++index) tap.from[index] = std::min(std::max(first - 1 + index, 0), source - 1);
    if (interpolation == 1) {
      tap.weight = {0, 1 - x, x, 0};
    } else {  // cubic convolution with OpenCV's coefficient
      const float a = -0.75f, y = 1 - x;
      const auto near = [a](float d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
      const auto far = [a](float d) { return ((a * (d + 1) - 5 * a) * (d + 1) + 8 * a) * (d + 1) - 4 * a; };
      tap.weight = {far(x), near(x), near(y), far(y)};
    }
  }
  return taps;
}

// Returns the input of the network [3, height, width]: resized to whole grey values as OpenCV does, then normalized.
inline std::vector<float> preprocess(const Image& image, const Config& config) {
  const std::vector<Tap> columns = make_taps(image.width, config.width, config.interpolation);
  const std::vector<Tap> rows = make_taps(image.height, config.height, config.interpolation);
  const int row_size = config.width * 3;
  std::vector<float> narrowed(static_cast<size_t>(image.height) * row_size);  // resized in one dimension
  for (int y = 0; y < image.height; ++y) {
    const uint8_t* source = &image.pixels[static_cast<size_t>(y) * image.width * 3];
    float* target = &narrowed[static_cast<size_t>(y) * row_size];
    for (const Tap& tap : columns) {
      for (int channel = 0; channel < 3; ++channel) {
        float sum = 0;
        for (int index = 0; index < 4; ++index) sum += tap.weight[index] * source[tap.from[index] * 3 + channel];
        *target++ = sum;
      }
    }
  }
  const int plane = config.height * config.width;
  std::vector<float> input(static_cast<size_t>(plane) * 3);
  for (int y = 0; y < config.height; ++y) {
    for (int x = 0; x < row_size; ++x) {
      float sum = 0;
      for (int index = 0; index < 4; ++index) {
        sum += rows[y].weight[index] * narrowed[static_cast<size_t>(rows[y].from[index]) * row_size + x];
      }
      const float pixel = std::min(std::max(std::round(sum), 0.0f), 255.0f);
      const int channel = x % 3;
      input[channel * plane + y * config.width + x / 3] =
          (pixel * config.scale - config.mean[channel]) / config.std[channel];
    }
  }
  return input;
}

// Returns the network's pixels per pixel of the image, height first: its input `scale_factor`.
inline std::array<float, 2> scale_factor(const Image& image, const Config& config) {
  return {static_cast<float>(config.height) / image.height, static_cast<float>(config.width) / image.width};
}

// Turns the rows [class, score, x1, y1, x2, y2] that the network returns after NMS into boxes, best first.
inline std::vector<Box> find_boxes(const float* rows, int count, const Image& image, const Config& config) {
  std::vector<Box> boxes;
  for (const float* row = rows; row < rows + count * 6; row += 6) {
    if (!(row[0] >= 0 && row[1] >= config.threshold)) continue;  // class -1 is padding
    const size_t label = static_cast<size_t>(row[0]);
    require(label < config.labels.size(), "label_list has no class " + std::to_string(label));
    const auto clip = [](float value, int most) { return std::min(std::max(value, 0.0f), static_cast<float>(most)); };
    const Box box{config.labels[label],       row[1],
                  clip(row[2], image.width),  clip(row[3], image.height),
                  clip(row[4], image.width),  clip(row[5], image.height)};
    if (box.x1 < box.x2 && box.y1 < box.y2) boxes.push_back(box);
  }
  std::stable_sort(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.score > b.score; });
  return boxes;
}

}  // namespace detector
