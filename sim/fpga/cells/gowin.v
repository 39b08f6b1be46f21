// SPDX-License-Identifier: Apache-2.0
// Cells of Gowin's GW1N and GW2A for simulation, as far as netlists of the array have them. Written after Gowin's documents:
// UG288 (configurable function units), UG285 (block RAM), UG287 (multipliers), UG289 (pins).
// What a netlist does not use of a cell (registers inside a multiplier, output registers of a RAM) ends the simulation.
// Contents of lookup tables come as pins (`sim.fpga.netlist.simulated`).

module VCC (output V);
  assign V = 1'b1;
endmodule

module GND (output G);
  assign G = 1'b0;
endmodule

module IBUF (output O, input I);
  assign O = I;
endmodule

module OBUF (output O, input I);
  assign O = I;
endmodule

module TBUF (output O, input I, OEN);
  assign O = I;
  always @* if (OEN) $fatal(1, "TBUF that lets go of its pin is not modelled");
endmodule

module LUT1 (input [1:0] INIT, output F, input I0);
  assign F = INIT[I0];
endmodule

module LUT2 (input [3:0] INIT, output F, input I0, I1);
  assign F = INIT[{I1, I0}];
endmodule

module LUT3 (input [7:0] INIT, output F, input I0, I1, I2);
  assign F = INIT[{I2, I1, I0}];
endmodule

module LUT4 (input [15:0] INIT, output F, input I0, I1, I2, I3);
  assign F = INIT[{I3, I2, I1, I0}];
endmodule

module MUX2_LUT5 (output O, input I0, I1, S0);
  assign O = S0 ? I1 : I0;
endmodule

module MUX2_LUT6 (output O, input I0, I1, S0);
  assign O = S0 ? I1 : I0;
endmodule

module MUX2_LUT7 (output O, input I0, I1, S0);
  assign O = S0 ? I1 : I0;
endmodule

module MUX2_LUT8 (output O, input I0, I1, S0);
  assign O = S0 ? I1 : I0;
endmodule

// One bit of a carry chain: a sum, and the carry of the same operands. UG288, table of ALU modes.
module ALU #(parameter ALU_MODE = 0) (output SUM, COUT, input I0, I1, I3, CIN);
  reg half, made;  // sum without carry; carry where both operands agree
  always @* begin
    case (ALU_MODE)
      0: {half, made} = {I0 ^ I1, I0};                   // I0 + I1
      1: {half, made} = {I0 ^ ~I1, I0};                  // I0 - I1
      2: {half, made} = {I3 ? I0 ^ I1 : I0 ^ ~I1, I0};   // either
      3: {half, made} = {I0 ^ ~I1, 1'b1};                // COUT: they differ
      4: {half, made} = {I0 ^ ~I1, I0};                  // COUT: I0 >= I1
      5: {half, made} = {~I0 ^ I1, I1};                  // COUT: I0 <= I1
      default: begin
        half = 1'bx;
        made = 1'bx;
        $fatal(1, "ALU_MODE %0d is not modelled", ALU_MODE);
      end
    endcase
  end
  assign SUM = half ^ CIN;
  assign COUT = half ? CIN : made;
endmodule

// Flip-flops: E with an enable, S and R to one and zero with the clock, in front of the enable.
module DFF #(parameter INIT = 1'b0) (output reg Q, input D, CLK);
  initial Q = INIT;
  always @(posedge CLK) Q <= D;
endmodule

module DFFE #(parameter INIT = 1'b0) (output reg Q, input D, CLK, CE);
  initial Q = INIT;
  always @(posedge CLK) if (CE) Q <= D;
endmodule

module DFFS #(parameter INIT = 1'b1) (output reg Q, input D, CLK, SET);
  initial Q = INIT;
  always @(posedge CLK) Q <= SET ? 1'b1 : D;
endmodule

module DFFSE #(parameter INIT = 1'b1) (output reg Q, input D, CLK, CE, SET);
  initial Q = INIT;
  always @(posedge CLK) if (SET) Q <= 1'b1; else if (CE) Q <= D;
endmodule

module DFFR #(parameter INIT = 1'b0) (output reg Q, input D, CLK, RESET);
  initial Q = INIT;
  always @(posedge CLK) Q <= RESET ? 1'b0 : D;
endmodule

module DFFRE #(parameter INIT = 1'b0) (output reg Q, input D, CLK, CE, RESET);
  initial Q = INIT;
  always @(posedge CLK) if (RESET) Q <= 1'b0; else if (CE) Q <= D;
endmodule

// 16 words of 4 bits, written with the clock, read within a cycle.
module RAM16SDP4 #(
    parameter [15:0] INIT_0 = 0, INIT_1 = 0, INIT_2 = 0, INIT_3 = 0
) (output [3:0] DO, input [3:0] DI, WAD, RAD, input WRE, CLK);
  reg [3:0] words[0:15];
  integer n;
  initial for (n = 0; n < 16; n = n + 1) words[n] = {INIT_3[n], INIT_2[n], INIT_1[n], INIT_0[n]};
  always @(posedge CLK) if (WRE) words[WAD] <= DI;
  assign DO = words[RAD];
endmodule

// Block RAM with a write port A and a read port B, 9 to 36 bits wide. Addresses count bits in steps of eight: a word of 36
// bits has four byte enables in place of its lowest address bits, one of 18 has two.
module SDPX9B #(
    parameter [287:0] INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, INIT_RAM_04 = 0,
    INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0,
    parameter [287:0] INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0, INIT_RAM_0C = 0,
    INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0,
    parameter [287:0] INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, INIT_RAM_14 = 0,
    INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0,
    parameter [287:0] INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, INIT_RAM_1C = 0,
    INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0,
    parameter [287:0] INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0, INIT_RAM_24 = 0,
    INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0,
    parameter [287:0] INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, INIT_RAM_2C = 0,
    INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0,
    parameter [287:0] INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, INIT_RAM_34 = 0,
    INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0,
    parameter [287:0] INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0, INIT_RAM_3C = 0,
    INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0,
    parameter READ_MODE = 1'b0, BIT_WIDTH_0 = 36, BIT_WIDTH_1 = 36, RESET_MODE = "SYNC",
    parameter [2:0] BLK_SEL_0 = 0, BLK_SEL_1 = 0
) (
    input CLKA, CEA, CLKB, CEB, OCE, RESETA, RESETB,
    input [13:0] ADA, ADB,
    input [2:0] BLKSELA, BLKSELB,
    input [35:0] DI,
    output reg [35:0] DO
);
  reg [8:0] bytes[0:2047];
  integer n;
  localparam WRITTEN = BIT_WIDTH_0 / 9, READ = BIT_WIDTH_1 / 9;
  wire [10:0] to = ADA[13:3] & ~(WRITTEN - 1), from = ADB[13:3] & ~(READ - 1);
  initial begin
    if (READ_MODE != 0) $fatal(1, "SDPX9B with an output register is not modelled");
    DO = 0;
    for (n = 0; n < 2048; n = n + 1) bytes[n] = 0;
  end
  always @(posedge CLKA)
    if (CEA && BLKSELA == BLK_SEL_0)
      for (n = 0; n < WRITTEN; n = n + 1)
        if (WRITTEN == 1 || ADA[n]) bytes[to + n[10:0]] <= DI[9*n +: 9];
  always @(posedge CLKB)
    if (RESETB) DO <= 0;
    else if (CEB && BLKSELB == BLK_SEL_1)
      for (n = 0; n < READ; n = n + 1) DO[9*n +: 9] <= bytes[from + n[10:0]];
endmodule

// 18 by 18 bits, each signed or not, all registers passed by.
module MULT18X18 #(
    parameter AREG = 0, BREG = 0, OUT_REG = 0, PIPE_REG = 0, ASIGN_REG = 0, BSIGN_REG = 0, SOA_REG = 0,
    MULT_RESET_MODE = "SYNC"
) (
    output [35:0] DOUT, output [17:0] SOA, SOB,
    input [17:0] A, B, SIA, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET
);
  initial
    if (AREG != 0 || BREG != 0 || OUT_REG != 0 || PIPE_REG != 0 || ASIGN_REG != 0 || BSIGN_REG != 0)
      $fatal(1, "MULT18X18 with registers is not modelled");
  wire signed [18:0] a = {ASIGN & A[17], A}, b = {BSIGN & B[17], B};
  wire signed [37:0] product = a * b;
  assign DOUT = product[35:0];
  assign SOA = A;
  assign SOB = B;
  always @* if (ASEL || BSEL) $fatal(1, "MULT18X18 in a chain is not modelled");
endmodule
