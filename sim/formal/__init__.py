"""Properties of the hardware, proved for all inputs: claims, and the engines that prove them (see docs/formal.md)."""
