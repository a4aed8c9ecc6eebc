"""Trained models as files for other programs: TensorFlow Lite and ONNX, and the proof that they are the same models.

A keras model on torch becomes a torch network (`network`), its three-dimensional convolutions two-dimensional ones
(`flatten`), then a file (`tflite`, `onnx`), which carries its labels and description (`files`) and has a card beside it
(`card`). `export_run` (`run`) makes all files of a run and scores each on the test split (`verify`).
"""
