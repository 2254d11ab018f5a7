"""Build the cpu image without a Docker daemon, and run the four commands in it: `make image-test`."""
