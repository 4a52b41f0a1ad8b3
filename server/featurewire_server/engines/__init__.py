"""What computes a version: TensorFlow, or OpenVINO for the network of an artifact."""
