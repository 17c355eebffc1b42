"""Who does the work of a round: a worker with its data, simulating clients or being a device."""
