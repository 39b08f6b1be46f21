// SPDX-License-Identifier: Apache-2.0
// One-read one-write synchronous RAM: the only memory in the design. Replace the body by a macro.
// Reading a word in the cycle in which it is written is forbidden; the simulation model returns the
// complement of the old word there, so that a design that relied on either value would fail. For the same
// reason synthesis need not add logic that makes an FPGA's RAM answer with the old word: no_rw_check.
module eie_ram #(
    parameter WIDTH = 8,
    parameter DEPTH = 16,
    parameter ADDRESS = 4,
    parameter STYLE = "auto",
    parameter LOG = 0
) (
    input                    clk,
    input                    w_en,
    input      [ADDRESS-1:0] w_addr,
    input      [WIDTH-1:0]   w_data,
    input                    r_en,
    input      [ADDRESS-1:0] r_addr,
    output reg [WIDTH-1:0]   r_data
);
  (* no_rw_check, ram_style = STYLE *)
  reg [WIDTH-1:0] mem[0:DEPTH-1];

  always @(posedge clk) begin
    if (w_en) mem[w_addr] <= w_data;
`ifdef EIE_SIMULATION
    if (r_en) r_data <= (w_en && w_addr == r_addr) ? ~mem[r_addr] : mem[r_addr];
`else
    if (r_en) r_data <= mem[r_addr];
`endif
  end

`ifdef EIE_SIMULATION
  // +eie_preload=DIR loads DIR/<hierarchical name>.hex where that file exists.
  string folder, file;
  integer handle;
  initial begin
    if ($value$plusargs("eie_preload=%s", folder)) begin
      file = $sformatf("%s/%m.hex", folder);
      handle = $fopen(file, "r");
      if (handle != 0) begin
        $fclose(handle);
        $readmemh(file, mem);
      end
    end
  end

  // +eie_log=FOLDER lists what is written to memories with LOG, each in a file of its own, since what several append to
  // one file is mixed within lines: address and word of each write.
  string path;
  integer log = 0;
  initial if (LOG != 0 && $value$plusargs("eie_log=%s", path)) log = $fopen($sformatf("%s/%m.log", path), "w");
  always @(posedge clk) if (log != 0 && w_en) $fdisplay(log, "%h %h", w_addr, w_data);
  final if (log != 0) $fclose(log);
`endif
endmodule
