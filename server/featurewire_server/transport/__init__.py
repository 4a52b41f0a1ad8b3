"""What answers on sockets: gRPC and REST, on one event loop."""
