// What a terminal shows beside text: colors, and how far long work has come.
#pragma once

#include <cstdio>
#include <string>

// Whether `stream` is a terminal that shows colors: neither TERM=dumb nor NO_COLOR (https://no-color.org) say that it should not.
bool shows_colors(std::FILE* stream);

// The columns of standard output; 100 where it is no terminal.
int columns();

// A line on standard error that says what is being done; nothing where that is no terminal. The line goes when the work ends.
class Progress {
 public:
  Progress();
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void show(const std::string& what);
  void clear();

 private:
  bool shown_ = false;
  const bool on_terminal_;
};
