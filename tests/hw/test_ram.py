"""The Verilog of the memory primitive: what a memory with LOG writes into the folder that +eie_log names."""

from __future__ import annotations

import subprocess
from importlib import resources

import pytest

from sim.rtl.build import _MAKE_VARIABLES, tool_environment

BENCH = """
module bench;
  reg clk = 0;
  reg [3:0] address = 0;
  wire [7:0] unused_a, unused_b, unused_c;
  eie_ram #(.WIDTH(8), .DEPTH(16), .ADDRESS(4), .LOG(1)) acts_0 (.clk(clk), .w_en(address[0]), .w_addr(address),
    .w_data({address, 4'd5}), .r_en(1'b0), .r_addr(4'd0), .r_data(unused_a));
  eie_ram #(.WIDTH(8), .DEPTH(16), .ADDRESS(4), .LOG(1)) acts_1 (.clk(clk), .w_en(address == 2), .w_addr(address),
    .w_data(8'hff), .r_en(1'b0), .r_addr(4'd0), .r_data(unused_b));
  eie_ram #(.WIDTH(8), .DEPTH(16), .ADDRESS(4)) other (.clk(clk), .w_en(1'b1), .w_addr(address),
    .w_data(8'h11), .r_en(1'b0), .r_addr(4'd0), .r_data(unused_c));
  initial begin
    repeat (6) begin
      #1 clk = 1;
      #1 clk = 0; address = address + 1;
    end
    $finish;
  end
endmodule
"""


@pytest.mark.verifies("memory-primitive-list-writes-simulation")
@pytest.mark.rtl
@pytest.mark.slow
def test_writes_are_listed_for_memories_with_log_only(tmp_path):
    ram = (resources.files("hw") / "rtl" / "eie_ram.v").read_text()
    (tmp_path / "eie_ram.v").write_text(ram)
    (tmp_path / "bench.v").write_text(BENCH)
    options = ["--binary", "--timing", "-Wno-fatal", "+define+EIE_SIMULATION", "--top", "bench",
               "-MAKEFLAGS", " ".join(_MAKE_VARIABLES[1:4])]  # fmt: skip
    subprocess.run(
        ["verilator", *options, "bench.v", "eie_ram.v"], cwd=tmp_path, env=tool_environment(), check=True,
        capture_output=True,
    )  # fmt: skip
    log = tmp_path / "writes"
    log.mkdir()
    for _ in range(2):  # a second run begins the files anew
        subprocess.run(["./obj_dir/Vbench", f"+eie_log={log}"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["./obj_dir/Vbench"], cwd=tmp_path, check=True, capture_output=True)
    listed = {path.name: path.read_text().splitlines() for path in log.iterdir()}
    assert listed == {"bench.acts_0.log": ["1 15", "3 35", "5 55"], "bench.acts_1.log": ["2 ff"]}
