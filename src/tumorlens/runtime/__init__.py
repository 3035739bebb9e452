"""Running a bundle: export to ONNX (needs torch) and prediction (does not)."""
