# What a wheel holds beside the Python files: the operator library and the program, which find LibTorch in the torch of the environment.
install(TARGETS bnfold_ops LIBRARY DESTINATION bnfold)
install(FILES "${BNFOLD_TORCH_VERSION_FILE}" DESTINATION bnfold)
install(TARGETS bnfold_program RUNTIME DESTINATION bnfold/bin)
