# libbnfold_onednn, the networks of oneDNN's primitives: a library of its own, since nothing else needs oneDNN. Where oneDNN 2 or 3 is not
# installed, as Debian's libdnnl-dev, or LibTorch is older than 2, it is not built.
find_path(BNFOLD_ONEDNN_INCLUDE_DIR oneapi/dnnl/dnnl.hpp NO_PACKAGE_ROOT_PATH)
find_library(BNFOLD_ONEDNN_LIBRARY dnnl)
mark_as_advanced(BNFOLD_ONEDNN_INCLUDE_DIR BNFOLD_ONEDNN_LIBRARY)
set(BNFOLD_ONEDNN OFF)
if(BNFOLD_ONEDNN_INCLUDE_DIR AND BNFOLD_ONEDNN_LIBRARY AND LibTorch_VERSION VERSION_GREATER_EQUAL 2 AND NOT SKBUILD)
  file(STRINGS "${BNFOLD_ONEDNN_INCLUDE_DIR}/oneapi/dnnl/dnnl_version.h" _version REGEX "DNNL_VERSION_MAJOR +[23]$")
  if(_version)
    set(BNFOLD_ONEDNN ON)
  endif()
endif()
message(STATUS "Networks of oneDNN's primitives: ${BNFOLD_ONEDNN}")
if(NOT BNFOLD_ONEDNN)
  return()
endif()

# LibTorch's headers bring a oneDNN of their own: what includes the other one does not see them.
add_library(bnfold_network OBJECT
  passes/onednn/description.cpp
  passes/onednn/lay_out.cpp
  passes/onednn/network.cpp
  passes/onednn/orders.cpp
  passes/onednn/primitives.cpp
  passes/onednn/program.cpp
  passes/onednn/shared_parts.cpp
  passes/onednn/weight.cpp)
bnfold_target(bnfold_network)
target_compile_features(bnfold_network PRIVATE cxx_std_17)
set_target_properties(bnfold_network PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_include_directories(bnfold_network PRIVATE passes)
target_include_directories(bnfold_network SYSTEM PRIVATE "${BNFOLD_ONEDNN_INCLUDE_DIR}")

add_library(bnfold_onednn SHARED
  passes/onednn/extraction.cpp
  passes/onednn/lower.cpp
  passes/onednn/operators.cpp
  passes/onednn/region.cpp
  passes/onednn/runner.cpp
  passes/onednn/steps.cpp)
add_library(bnfold::onednn ALIAS bnfold_onednn)
bnfold_target(bnfold_onednn)
set_target_properties(bnfold_onednn PROPERTIES EXPORT_NAME onednn LIBRARY_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/lib")
target_include_directories(bnfold_onednn
  PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>" "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>"
  PRIVATE passes)
target_link_libraries(bnfold_onednn
  PUBLIC LibTorch::LibTorch
  PRIVATE $<BUILD_INTERFACE:bnfold> $<BUILD_INTERFACE:bnfold_network> $<BUILD_INTERFACE:fmt::fmt-header-only>
          $<BUILD_INTERFACE:nlohmann_json::nlohmann_json> $<BUILD_INTERFACE:${BNFOLD_ONEDNN_LIBRARY}>)
