"""The transports, gRPC and REST, which share one event loop."""
