// What the runners have in common: arguments, inputs, timing, and a line of JSON for each run and for the result.
//
// lite_runner and mnn_runner take the same arguments and print the same lines, which paddle_sparse_cb/deploy/device.py
// reads; runtimes may print other lines between them. Errors go to standard error. Exit codes: 0 success, 1 failure, 2
// wrong arguments.
#pragma once

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace runner {

using Shape = std::vector<int64_t>;

enum class Cluster { kAny, kBig, kLittle };

struct Options {
  std::string model;
  std::vector<Shape> inputs;
  int warmup = 10, repeats = 50, threads = 1;
  Cluster cluster = Cluster::kAny;
};

// One output of the last run. The mean shows whether two files compute the same: the inputs are always the same.
struct Output {
  Shape shape;
  double mean_magnitude;
};

[[noreturn]] inline void fail(const std::string& message, int code = 1) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(code);
}

inline int64_t size(const Shape& shape) {
  int64_t product = 1;
  for (int64_t length : shape) product *= length;
  return product;
}

inline int64_t parse_number(const std::string& text, int64_t most) {
  char* end = nullptr;
  const long long number = std::strtoll(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || number < 0 || number > most) {
    fail("not a number up to " + std::to_string(most) + ": '" + text + "'", 2);
  }
  return number;
}

inline Shape parse_shape(const std::string& text) {
  Shape shape;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find('x', begin);
    shape.push_back(parse_number(text.substr(begin, end == std::string::npos ? end : end - begin), 1 << 16));
    if (shape.back() == 0 || size(shape) > (1 << 28)) fail("an input cannot have the shape '" + text + "'", 2);
  }
  return shape;
}

inline Options parse(int count, char** arguments) {
  const std::string usage = std::string("usage: ") + arguments[0] +
                            " MODEL [--input 1x3x320x320]... [--warmup N] [--repeats N] [--threads N] "
                            "[--cluster any|big|little]";
  Options options;
  for (int index = 1; index < count; ++index) {
    const std::string name = arguments[index];
    if (name.compare(0, 2, "--") != 0) {
      if (!options.model.empty()) fail(usage, 2);
      options.model = name;
      continue;
    }
    if (++index == count) fail(usage, 2);
    const std::string value = arguments[index];
    if (name == "--input") options.inputs.push_back(parse_shape(value));
    else if (name == "--warmup") options.warmup = static_cast<int>(parse_number(value, 1 << 20));
    else if (name == "--repeats") options.repeats = std::max<int>(1, static_cast<int>(parse_number(value, 1 << 20)));
    else if (name == "--threads") options.threads = std::max<int>(1, static_cast<int>(parse_number(value, 1 << 10)));
    else if (name == "--cluster" && value == "any") options.cluster = Cluster::kAny;
    else if (name == "--cluster" && value == "big") options.cluster = Cluster::kBig;
    else if (name == "--cluster" && value == "little") options.cluster = Cluster::kLittle;
    else fail(usage, 2);
  }
  if (options.model.empty()) fail(usage, 2);
  std::FILE* file = std::fopen(options.model.c_str(), "rb");  // the runtimes abort if they cannot read it
  if (file == nullptr) fail("cannot read " + options.model, 2);
  std::fclose(file);
  return options;
}

// A pattern between -1 and 1. Small inputs, such as PicoDet's scale factor, are ones.
inline void fill(float* data, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    data[index] = count > 16 ? static_cast<float>((index * 37) % 256) / 127.5f - 1.0f : 1.0f;
  }
}

template <typename T>
double mean_magnitude(const T* data, int64_t count) {
  double sum = 0.0;
  for (int64_t index = 0; index < count; ++index) sum += std::fabs(static_cast<double>(data[index]));
  return count > 0 ? sum / static_cast<double>(count) : 0.0;
}

inline std::string quote(const std::string& text) {
  std::string quoted = "\"";
  for (unsigned char character : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof(escaped), "\\u%04x", character);
    const bool plain = character >= 0x20 && character != '"' && character != '\\';
    quoted += plain ? std::string(1, static_cast<char>(character)) : escaped;
  }
  return quoted + "\"";
}

template <typename T>
std::string list(const std::vector<T>& numbers) {
  std::string text;
  for (T number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return "[" + text + "]";
}

// The processors that this thread may use: what the runtime has made of the cluster.
inline std::vector<int> allowed_cpus() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Times `run` after the warm-up and prints {"run": ..., "ms": ...} for each run. `set_inputs` is called before each run
// and not timed: the runtimes use the memory of the inputs for intermediate results.
inline std::vector<double> time(const Options& options, const std::function<void()>& set_inputs,
                                const std::function<void()>& run) {
  std::vector<double> milliseconds;
  for (int index = -options.warmup; index < options.repeats; ++index) {
    set_inputs();
    const auto start = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    if (index < 0) continue;
    milliseconds.push_back(elapsed.count());
    std::printf("{\"run\": %d, \"ms\": %.6f}\n", index, elapsed.count());
  }
  return milliseconds;
}

// Prints the last line, with "runtime", "version", "threads", "cpus", "median_ms", "min_ms" and "outputs".
inline int report(const Options& options, const std::string& runtime, const std::string& version,
                  std::vector<double> milliseconds, const std::vector<Output>& outputs) {
  std::sort(milliseconds.begin(), milliseconds.end());
  const size_t half = milliseconds.size() / 2;
  const double median = (milliseconds[(milliseconds.size() - 1) / 2] + milliseconds[half]) / 2;
  std::string described;
  for (const Output& output : outputs) {
    char mean[32] = "null";  // JSON has no NaN
    if (std::isfinite(output.mean_magnitude)) std::snprintf(mean, sizeof(mean), "%.9g", output.mean_magnitude);
    described += described.empty() ? "" : ", ";
    described += "{\"shape\": " + list(output.shape) + ", \"mean_magnitude\": " + mean + "}";
  }
  std::printf(
      "{\"runtime\": %s, \"version\": %s, \"threads\": %d, \"cpus\": %s, \"median_ms\": %.6f, \"min_ms\": %.6f, "
      "\"outputs\": [%s]}\n",
      quote(runtime).c_str(), quote(version).c_str(), options.threads, list(allowed_cpus()).c_str(), median,
      milliseconds.front(), described.c_str());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace runner
