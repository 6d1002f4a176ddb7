# Provides yaml-cpp::yaml-cpp: an installed one, or its source at a pinned version.
include(FetchContent)
set(YAML_CPP "" CACHE PATH "an installed yaml-cpp 0.8; by default its source is downloaded")
if(YAML_CPP)
  find_package(yaml-cpp 0.8 REQUIRED PATHS "${YAML_CPP}" NO_DEFAULT_PATH)
else()
  set(CMAKE_POLICY_VERSION_MINIMUM 3.5) # CMake 4 refuses the one that yaml-cpp 0.8 states
  set(YAML_CPP_BUILD_TOOLS OFF CACHE BOOL "")
  set(YAML_CPP_BUILD_CONTRIB OFF CACHE BOOL "")
  FetchContent_Declare(yaml-cpp
    URL https://github.com/jbeder/yaml-cpp/archive/refs/tags/0.8.0.tar.gz
    URL_HASH SHA256=fbe74bbdcee21d656715688706da3c8becfd946d92cd44705cc6098bb23b3a16)
  FetchContent_MakeAvailable(yaml-cpp)
endif()
