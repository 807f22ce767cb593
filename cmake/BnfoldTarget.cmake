# What every target built here has in common: warnings, sanitizers, hidden symbols.
function(bnfold_target target)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE -Wshadow=local)
    target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)  # wrong about std::variant up to GCC 13
  endif()
  if(BNFOLD_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(BNFOLD_SANITIZE)
    # LibTorch does not export the type information of every class that its headers name, so no check of dynamic types.
    target_compile_options(${target} PRIVATE -fsanitize=${BNFOLD_SANITIZE} -fno-sanitize=vptr -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${BNFOLD_SANITIZE})
  endif()
endfunction()
