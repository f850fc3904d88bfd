"""Export to ONNX, with checks before anything is written."""
