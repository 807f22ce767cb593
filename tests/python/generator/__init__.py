"""Generated models: Hypothesis draws a program, which is written as the Python source of a module, run, folded and compared."""
