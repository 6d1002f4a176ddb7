// What the runners have in common: arguments, inputs, timing, and a line of JSON for each run and for the result.
//
// lite_runner and mnn_runner take the same arguments and print the same lines, which paddle_sparse_cb/deploy/device.py
// reads; runtimes may print other lines between them. Errors go to standard error. Exit codes: 0 success, 1 failure, 2
// wrong arguments.
#pragma once

#include <dirent.h>
#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace runner {

using Shape = std::vector<int64_t>;

enum class Cluster { kAny, kBig, kLittle };

struct Options {
  std::string model;  // a file, or "-" for standard input
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
                            " MODEL|- [--input 1x3x320x320]... [--warmup N] [--repeats N] [--threads N] "
                            "[--cluster any|big|little]";
  Options options;
  for (int index = 1; index < count; ++index) {
    const std::string name = arguments[index];
    if (name == "-" || name.compare(0, 1, "-") != 0) {
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
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a runner whose lines nobody reads any more ends at the next one
  return options;
}

inline std::string read_model(const Options& options) {
  std::FILE* file = options.model == "-" ? stdin : std::fopen(options.model.c_str(), "rb");
  std::string content;
  char part[1 << 16];
  size_t length = 0;
  while (file != nullptr && (length = std::fread(part, 1, sizeof(part), file)) > 0) content.append(part, length);
  if (content.empty()) fail("cannot read " + options.model, 2);
  return content;
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

inline std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line.substr(0, line.find('\0'));
}

// The hottest sensor of the processor in degrees Celsius, or of all if none is named so; NAN if none can be read.
inline double temperature(const std::string& root = "/sys/class/thermal") {
  double processor = NAN, any = NAN;
  DIR* folder = opendir(root.c_str());
  for (const dirent* entry; folder != nullptr && (entry = readdir(folder)) != nullptr;) {
    const std::string zone = root + "/" + entry->d_name;
    const std::string text = first_line(zone + "/temp"), type = first_line(zone + "/type");
    char* end = nullptr;
    double degrees = std::strtod(text.c_str(), &end);
    if (text.empty() || *end != '\0') continue;
    if (std::fabs(degrees) >= 1000) degrees /= 1000;  // most zones count thousandths
    if (degrees <= 0 || degrees > 150) continue;      // switched off
    any = std::fmax(any, degrees);
    const bool is_processor = type.find("cpu") != std::string::npos || type.find("soc") != std::string::npos;
    if (is_processor) processor = std::fmax(processor, degrees);
  }
  if (folder != nullptr) closedir(folder);
  return std::isnan(processor) ? any : processor;
}

inline std::string number_or_null(double number) {  // JSON has no NaN
  char text[32] = "null";
  if (std::isfinite(number)) std::snprintf(text, sizeof(text), "%.9g", number);
  return text;
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

// Prints the last line: what ran, on what, how fast, the temperature before and after, and the outputs.
inline int report(const Options& options, const std::string& runtime, const std::string& version,
                  double temperature_before, std::vector<double> milliseconds, const std::vector<Output>& outputs) {
  std::sort(milliseconds.begin(), milliseconds.end());
  const size_t half = milliseconds.size() / 2;
  const double median = (milliseconds[(milliseconds.size() - 1) / 2] + milliseconds[half]) / 2;
  std::string described;
  for (const Output& output : outputs) {
    described += described.empty() ? "" : ", ";
    described += "{\"shape\": " + list(output.shape) + ", \"mean_magnitude\": ";
    described += number_or_null(output.mean_magnitude) + "}";
  }
  utsname system;
  if (uname(&system) != 0) system.machine[0] = '\0';
  std::printf(
      "{\"runtime\": %s, \"version\": %s, \"machine\": %s, \"device\": %s, \"threads\": %d, \"cpus\": %s, "
      "\"temperature\": [%s, %s], \"median_ms\": %.6f, \"min_ms\": %.6f, \"outputs\": [%s]}\n",
      quote(runtime).c_str(), quote(version).c_str(), quote(system.machine).c_str(),
      quote(first_line("/proc/device-tree/model")).c_str(), options.threads, list(allowed_cpus()).c_str(),
      number_or_null(temperature_before).c_str(), number_or_null(temperature()).c_str(), median, milliseconds.front(),
      described.c_str());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace runner
