# Makes comments of the C++ headers ones that Doxygen reads: // before a declaration or at the top of a file, and // behind a member.
1s|^// |/// \\file\n/// |
/^enum class .*\{$/,/^\};/b
s|^( *)//( .*)?$|\1///\2|
s|;  +// |;  ///< |
