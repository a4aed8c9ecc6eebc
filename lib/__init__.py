"""A notebook-first, reproducible study of word-level sign-language recognition on WLASL.

Importing `lib` loads no deep-learning framework; only the modules that need one do.
"""
