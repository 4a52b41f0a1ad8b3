"""The engines that compute a version: TensorFlow, or OpenVINO for an artifact's network."""
