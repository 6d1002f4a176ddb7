// The part of MNN's public API (3.6, include/MNN/Interpreter.hpp and what it includes) that the runner uses.
//
// MNN's wheels have no headers. What follows states the API and fits the binary interface of the wheel, see paddle_api.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

enum MNNForwardType { MNN_FORWARD_CPU = 0 };

namespace MNN {

enum ErrorCode { NO_ERROR = 0 };

struct BackendConfig {
  enum MemoryMode { Memory_Normal = 0 };
  enum PowerMode { Power_Normal = 0, Power_High, Power_Low };
  enum PrecisionMode { Precision_Normal = 0, Precision_High, Precision_Low };
  MemoryMode memory = Memory_Normal;
  PowerMode power = Power_Normal;
  PrecisionMode precision = Precision_Normal;
  void* sharedContext = nullptr;
};

struct ScheduleConfig {
  struct Path {
    std::vector<std::string> inputs, outputs;
    int mode = 0;
  };
  std::vector<std::string> saveTensors;
  MNNForwardType type = MNN_FORWARD_CPU;
  int numThread = 4;
  Path path;
  MNNForwardType backupType = MNN_FORWARD_CPU;
  BackendConfig* backendConfig = nullptr;
};

class Tensor {  // created by the library only
 public:
  ~Tensor();
  static Tensor* createHostTensorFromDevice(const Tensor* tensor, bool copy = true);
  bool copyFromHostTensor(const Tensor* tensor);
  std::vector<int> shape() const;
  template <typename T>
  T* host() const {
    return reinterpret_cast<T*>(host_);
  }

 private:
  uint64_t device_;
  const void* device_interface_;
  uint8_t* host_;
};

class Session;

class Interpreter {
 public:
  static Interpreter* createFromBuffer(const void* model, size_t size);
  ~Interpreter();
  Session* createSession(const ScheduleConfig& config);
  ErrorCode runSession(Session* session) const;
  const std::map<std::string, Tensor*>& getSessionInputAll(const Session* session) const;
  const std::map<std::string, Tensor*>& getSessionOutputAll(const Session* session) const;
};

const char* getVersion();

}  // namespace MNN
