"""Data readers of `onnxlrp evaluate`: photos, Pascal VOC, tables, arrays and texts, one sample at a time."""
