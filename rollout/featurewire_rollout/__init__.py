"""Model version rollouts against TensorFlow Serving or the embedded server."""
