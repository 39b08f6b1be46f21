"""Code that runs inside the simulator, driven by cocotb."""
