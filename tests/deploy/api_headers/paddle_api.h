// The part of Paddle-Lite's public API (2.13, lite/api/paddle_api.h and paddle_place.h) that the runner uses.
//
// Paddle-Lite's headers are in its inference library, which no package registry has. What follows states the API, so that
// the runner is compiled against it, and fits the binary interface of the optimizer's wheel, so that it runs too. The
// configuration's members are not stated: it is a block of zeros that the library's own functions fill.
#pragma once

#include <cstdint>
#include <cstddef>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

namespace paddle {
namespace lite_api {

using shape_t = std::vector<int64_t>;

enum class TargetType : int { kHost = 1 };
enum class PrecisionType : int { kFloat = 1, kInt8 = 2, kInt32 = 3, kFP16 = 5, kInt64 = 7 };
enum PowerMode { LITE_POWER_HIGH = 0, LITE_POWER_LOW = 1, LITE_POWER_FULL = 2, LITE_POWER_NO_BIND = 3 };

struct Tensor {
  void Resize(const shape_t& shape);
  template <typename T>
  const T* data() const;
  template <typename T>
  T* mutable_data(TargetType type = TargetType::kHost) const;
  shape_t shape() const;
  PrecisionType precision() const;

 private:
  void* raw_tensor_;
};

class PaddlePredictor {  // virtual functions in their order; `Unused` stands for those that are not called
 public:
  virtual std::unique_ptr<Tensor> GetInput(int index) = 0;
  virtual std::unique_ptr<const Tensor> GetOutput(int index) const = 0;
  virtual void Run() = 0;
  virtual void UnusedClone() = 0;
  virtual void UnusedCloneWithNames() = 0;
  virtual std::string GetVersion() const = 0;
  virtual std::vector<std::string> GetInputNames() = 0;
  virtual std::vector<std::string> GetOutputNames() = 0;

 protected:
  ~PaddlePredictor() = default;  // destroyed by the library's shared pointer
};

class ConfigBase {
 public:
  explicit ConfigBase(PowerMode mode = LITE_POWER_NO_BIND, int threads = 1);
  void set_threads(int threads);
  void set_power_mode(PowerMode mode);
};

class MobileConfig {
 public:
  MobileConfig() { new (storage_) ConfigBase(); }
  void set_model_from_buffer(const std::string& model);
  void set_threads(int threads) { reinterpret_cast<ConfigBase*>(storage_)->set_threads(threads); }
  void set_power_mode(PowerMode mode) { reinterpret_cast<ConfigBase*>(storage_)->set_power_mode(mode); }

 private:
  alignas(std::max_align_t) char storage_[8192] = {};
};

template <typename Config>
std::shared_ptr<PaddlePredictor> CreatePaddlePredictor(const Config& config);

}  // namespace lite_api
}  // namespace paddle
