"""Networks written a second time, from the papers and configuration files alone; nothing here imports `alexnet_jax`."""
