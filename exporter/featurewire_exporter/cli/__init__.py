"""The commands. Parsing imports no TensorFlow; the work does, once its arguments are right."""
