// SPDX-License-Identifier: Apache-2.0
// Lookup table, block RAM and multiplier of Lattice's iCE40 for simulation, as far as synthesis makes use of them. Written after
// FPGA-TN-02002 (block RAM) and FPGA-TN-02007 (DSP). SPRAM has one port and the array's memories have two, so it is not used.
// What is not modelled ends the simulation. Contents of lookup tables come as pins (`sim.fpga.netlist.simulated`).

module SB_LUT4 (input [15:0] LUT_INIT, output O, input I0, I1, I2, I3);
  assign O = LUT_INIT[{I3, I2, I1, I0}];
endmodule

// Block RAM of 256 words of 16 bits, or 512, 1024, 2048 of 8, 4, 2: the data pins in use then lie 2, 4, 8 apart. A bit of MASK that
// is 1 keeps a bit of a word of 16.
module SB_RAM40_4K #(
    parameter READ_MODE = 0, WRITE_MODE = 0,
    parameter [255:0] INIT_0 = 0, INIT_1 = 0, INIT_2 = 0, INIT_3 = 0, INIT_4 = 0, INIT_5 = 0, INIT_6 = 0, INIT_7 = 0,
    INIT_8 = 0, INIT_9 = 0, INIT_A = 0, INIT_B = 0, INIT_C = 0, INIT_D = 0, INIT_E = 0, INIT_F = 0
) (
    output reg [15:0] RDATA,
    input RCLK, RCLKE, RE, input [10:0] RADDR,
    input WCLK, WCLKE, WE, input [10:0] WADDR, input [15:0] MASK, WDATA
);
  // Bits of a narrow word lie apart in the word of 16 as the pins do; which of them is in the address bits above eight.
  reg [15:0] words[0:255];
  integer n;
  localparam WRITTEN = 16 >> WRITE_MODE, READ = 16 >> READ_MODE;
  localparam FIRST = READ_MODE == 3 ? 3 : READ_MODE == 2 ? 1 : 0, GIVEN = WRITE_MODE == 3 ? 3 : WRITE_MODE == 2 ? 1 : 0;
  wire [2:0] part = WADDR[10:8], chosen = RADDR[10:8];
  initial for (n = 0; n < 256; n = n + 1) words[n] = 0;
  always @(posedge WCLK)
    if (WCLKE && WE)
      for (n = 0; n < WRITTEN; n = n + 1)
        if (WRITE_MODE == 0) begin
          if (!MASK[n]) words[WADDR[7:0]][n] <= WDATA[n];
        end else words[WADDR[7:0]][(n << WRITE_MODE) + place(part, WRITE_MODE)] <= WDATA[(n << WRITE_MODE) + GIVEN];
  always @(posedge RCLK)
    if (RCLKE && RE)
      for (n = 0; n < READ; n = n + 1)
        if (READ_MODE == 0) RDATA[n] <= words[RADDR[7:0]][n];
        else RDATA[(n << READ_MODE) + FIRST] <= words[RADDR[7:0]][(n << READ_MODE) + place(chosen, READ_MODE)];
  // The address bits above eight, the highest first.
  function [3:0] place(input [2:0] part, input integer mode);
    place = mode == 1 ? {3'b0, part[0]} : mode == 2 ? {2'b0, part[0], part[1]} : {1'b0, part[0], part[1], part[2]};
  endfunction
endmodule

// A 16 by 16 multiplier, all registers passed by, whose product goes to the output.
module SB_MAC16 #(
    parameter NEG_TRIGGER = 0, C_REG = 0, A_REG = 0, B_REG = 0, D_REG = 0, TOP_8x8_MULT_REG = 0, BOT_8x8_MULT_REG = 0,
    parameter PIPELINE_16x16_MULT_REG1 = 0, PIPELINE_16x16_MULT_REG2 = 0,
    parameter [1:0] TOPOUTPUT_SELECT = 0, TOPADDSUB_LOWERINPUT = 0, parameter TOPADDSUB_UPPERINPUT = 0,
    parameter [1:0] TOPADDSUB_CARRYSELECT = 0, BOTOUTPUT_SELECT = 0, BOTADDSUB_LOWERINPUT = 0,
    parameter BOTADDSUB_UPPERINPUT = 0, parameter [1:0] BOTADDSUB_CARRYSELECT = 0,
    parameter MODE_8x8 = 0, A_SIGNED = 0, B_SIGNED = 0
) (
    input CLK, CE, input [15:0] C, A, B, D, input AHOLD, BHOLD, CHOLD, DHOLD, IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT,
    input OLOADTOP, OLOADBOT, ADDSUBTOP, ADDSUBBOT, OHOLDTOP, OHOLDBOT, CI, ACCUMCI, SIGNEXTIN,
    output [31:0] O, output CO, ACCUMCO, SIGNEXTOUT
);
  initial
    if (A_REG != 0 || B_REG != 0 || TOP_8x8_MULT_REG != 0 || BOT_8x8_MULT_REG != 0 || PIPELINE_16x16_MULT_REG1 != 0
        || PIPELINE_16x16_MULT_REG2 != 0 || MODE_8x8 != 0 || TOPOUTPUT_SELECT != 3 || BOTOUTPUT_SELECT != 3)
      $fatal(1, "SB_MAC16: only a plain 16 by 16 product is modelled");
  wire signed [16:0] a = {A_SIGNED != 0 && A[15], A}, b = {B_SIGNED != 0 && B[15], B};
  wire signed [33:0] product = a * b;
  assign O = product[31:0];
  assign {CO, ACCUMCO, SIGNEXTOUT} = {2'b0, A[15]};
endmodule
