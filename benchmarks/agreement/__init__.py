"""Values and gradients of the device that is there beside those of the CPU."""
