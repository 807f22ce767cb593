# What `cmake --install` puts where, and the package that find_package(bnfold) reads.
include(CMakePackageConfigHelpers)

set(_bnfold_package "${CMAKE_INSTALL_LIBDIR}/cmake/bnfold")

install(DIRECTORY include/bnfold DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS bnfold EXPORT bnfold ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(TARGETS bnfold_ops LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(FILES "${BNFOLD_TORCH_VERSION_FILE}" DESTINATION "${CMAKE_INSTALL_LIBDIR}")
set_target_properties(bnfold_ops PROPERTIES INSTALL_RPATH "${LibTorch_LIBRARY_DIR}")
if(BNFOLD_ONEDNN)
  install(TARGETS bnfold_onednn EXPORT bnfold LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
  set_target_properties(bnfold_onednn PROPERTIES INSTALL_RPATH "${LibTorch_LIBRARY_DIR}")
endif()
if(BNFOLD_TOOLS)
  install(TARGETS bnfold_program RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
  set_target_properties(bnfold_program PROPERTIES INSTALL_RPATH "${LibTorch_LIBRARY_DIR}")
endif()

# The static library holds code of one LibTorch only: the package remembers which, and where it was.
get_filename_component(BNFOLD_LIBTORCH_ROOT "${LibTorch_INCLUDE_DIR}" DIRECTORY)
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/bnfoldConfig.cmake.in" "${PROJECT_BINARY_DIR}/cmake/bnfoldConfig.cmake"
  INSTALL_DESTINATION "${_bnfold_package}" NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/cmake/bnfoldConfigVersion.cmake" COMPATIBILITY SameMinorVersion)

install(EXPORT bnfold NAMESPACE bnfold:: FILE bnfoldTargets.cmake DESTINATION "${_bnfold_package}")
install(
  FILES
    "${PROJECT_BINARY_DIR}/cmake/bnfoldConfig.cmake"
    "${PROJECT_BINARY_DIR}/cmake/bnfoldConfigVersion.cmake"
    "${PROJECT_SOURCE_DIR}/cmake/FindLibTorch.cmake"
  DESTINATION "${_bnfold_package}")
