"""A notebook-first, reproducible study of word-level sign-language recognition on WLASL.

Importing `lib` loads no deep-learning framework; only the modules that need one do.
"""

import os

# Keras loads TensorFlow for its own purposes whatever the backend; its remarks on hardware would fill the notebooks.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
