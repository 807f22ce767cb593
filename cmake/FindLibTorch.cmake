# Finds LibTorch without its own CMake files, which ask for the CUDA toolkit of the machine that built it.
#
# Looked for, in this order:
#   CMAKE_PREFIX_PATH and LibTorch_ROOT   an unzipped LibTorch, or what torch.utils.cmake_prefix_path says
#   the torch of the Python that pip builds a wheel with, of that in .venv beside the project, or of python3
#   the system (Debian's libtorch-dev)
#
# Result: LibTorch_FOUND, LibTorch_VERSION, LibTorch_LIBRARY_DIR and the target LibTorch::LibTorch.

set(_libtorch_hints ${LibTorch_ROOT} $ENV{LibTorch_ROOT})
foreach(_prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _libtorch_hints "${_prefix}" "${_prefix}/../.." "${_prefix}/torch")
endforeach()

find_path(LibTorch_INCLUDE_DIR torch/csrc/jit/api/module.h HINTS ${_libtorch_hints} PATH_SUFFIXES include NO_DEFAULT_PATH)

if(NOT LibTorch_INCLUDE_DIR)
  if(SKBUILD)
    set(LibTorch_PYTHON "${Python_EXECUTABLE}")
  endif()
  find_program(LibTorch_PYTHON NAMES python3 python HINTS "${PROJECT_SOURCE_DIR}/.venv/bin")
  mark_as_advanced(LibTorch_PYTHON)
  if(LibTorch_PYTHON)
    # Where pip isolates a build, its Python does not import from the environment that it builds for.
    execute_process(
      COMMAND "${LibTorch_PYTHON}" -c "import importlib.machinery as m, sys, sysconfig; s = m.PathFinder.find_spec('torch', [*sys.path, sysconfig.get_path('platlib')]); print(s.submodule_search_locations[0] if s else '')"
      OUTPUT_VARIABLE _libtorch_wheel OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(_libtorch_wheel)
      list(APPEND _libtorch_hints "${_libtorch_wheel}")
    endif()
  endif()
  find_path(LibTorch_INCLUDE_DIR torch/csrc/jit/api/module.h HINTS ${_libtorch_hints} PATH_SUFFIXES include)
endif()

# The libraries of the installation that the headers belong to, and no other.
get_filename_component(_libtorch_prefix "${LibTorch_INCLUDE_DIR}" DIRECTORY)
foreach(_name IN ITEMS torch torch_cpu c10 torch_cuda c10_cuda)
  find_library(LibTorch_${_name}_LIBRARY ${_name} PATHS "${_libtorch_prefix}" PATH_SUFFIXES lib lib/${CMAKE_LIBRARY_ARCHITECTURE} NO_DEFAULT_PATH)
  mark_as_advanced(LibTorch_${_name}_LIBRARY)
endforeach()
mark_as_advanced(LibTorch_INCLUDE_DIR)

foreach(_header IN ITEMS torch/csrc/api/include/torch/version.h torch/version.h torch/headeronly/version.h)
  if(EXISTS "${LibTorch_INCLUDE_DIR}/${_header}")
    file(STRINGS "${LibTorch_INCLUDE_DIR}/${_header}" _lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH) [0-9]+")
    if(_lines)
      string(REGEX REPLACE "[^0-9]*([0-9]+)[^0-9]+([0-9]+)[^0-9]+([0-9]+).*" "\\1.\\2.\\3" LibTorch_VERSION "${_lines}")
      break()
    endif()
  endif()
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_torch_cpu_LIBRARY LibTorch_torch_LIBRARY LibTorch_c10_LIBRARY LibTorch_INCLUDE_DIR
  VERSION_VAR LibTorch_VERSION
  REASON_FAILURE_MESSAGE "Install it with 'pip install torch' or 'apt-get install libtorch-dev', or point CMAKE_PREFIX_PATH at an unzipped LibTorch")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  get_filename_component(LibTorch_LIBRARY_DIR "${LibTorch_torch_cpu_LIBRARY}" DIRECTORY)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE "${LibTorch_INCLUDE_DIR}")
  if(EXISTS "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include/torch/torch.h")
    target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE "${LibTorch_INCLUDE_DIR}/torch/csrc/api/include")
  endif()
  # The C++ library first: the wheels' libraries export parts of one of their own, of which std::filesystem::remove_all in that of
  # torch 2.11 calls a function that is not there.
  target_link_libraries(LibTorch::LibTorch INTERFACE
    stdc++ "${LibTorch_torch_LIBRARY}" "${LibTorch_torch_cpu_LIBRARY}" "${LibTorch_c10_LIBRARY}")
  # Nothing refers to a symbol of the CUDA library: its operators register themselves when it is loaded.
  if(LibTorch_torch_cuda_LIBRARY)
    target_link_libraries(LibTorch::LibTorch INTERFACE
      -Wl,--push-state,--no-as-needed "${LibTorch_torch_cuda_LIBRARY}" "${LibTorch_c10_cuda_LIBRARY}" -Wl,--pop-state)
  endif()
  # What its headers need is stated in its own CMake files.
  set(_libtorch_config "${_libtorch_prefix}/share/cmake/Torch/TorchConfig.cmake")
  set(_libtorch_standard cxx_std_17)
  if(EXISTS "${_libtorch_config}")
    file(STRINGS "${_libtorch_config}" _abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
    file(STRINGS "${_libtorch_config}" _cxx20 REGEX "cxx_std_20")
    if(_abi)
      target_compile_definitions(LibTorch::LibTorch INTERFACE _GLIBCXX_USE_CXX11_ABI=0)
    endif()
    if(_cxx20)
      set(_libtorch_standard cxx_std_20)
    endif()
  endif()
  target_compile_features(LibTorch::LibTorch INTERFACE ${_libtorch_standard})
endif()
