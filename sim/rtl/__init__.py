"""The exported Verilog in Verilator: build, cache, run."""
