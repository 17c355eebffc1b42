"""Golden vectors: stored inputs and outputs that decide whether the maths is right."""
