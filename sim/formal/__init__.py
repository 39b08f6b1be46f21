"""Properties of the hardware, proved for all inputs: what is claimed, and the engines that prove it (docs/formal.md)."""
