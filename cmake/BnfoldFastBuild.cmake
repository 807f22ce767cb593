# ccache and mold, where they are installed: a second build of the same source takes seconds. LibTorch's headers, which take most of
# the time of a first one, are precompiled once for the library and once for the tests.
if(NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(BNFOLD_CCACHE ccache)
  mark_as_advanced(BNFOLD_CCACHE)
  if(BNFOLD_CCACHE)
    # What ccache needs to be told where headers are precompiled, see its manual.
    set(CMAKE_CXX_COMPILER_LAUNCHER
      "${CMAKE_COMMAND}" -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime "${BNFOLD_CCACHE}")
  endif()
endif()

if(NOT CMAKE_EXE_LINKER_FLAGS MATCHES "-fuse-ld=")
  include(CheckLinkerFlag)
  check_linker_flag(CXX -fuse-ld=mold BNFOLD_MOLD)
  if(BNFOLD_MOLD)
    add_link_options(-fuse-ld=mold)
  endif()
endif()

function(bnfold_precompile_headers target)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -fpch-preprocess)
  endif()
  target_precompile_headers(${target} PRIVATE ${ARGN} <torch/csrc/jit/api/module.h> <torch/csrc/jit/ir/ir.h> <fmt/format.h>)
endfunction()
