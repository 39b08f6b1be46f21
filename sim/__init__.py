"""What the hardware must do, and how it is run: golden model, cycle model, Verilog and Amaranth simulation."""
