// SPDX-License-Identifier: Apache-2.0
// Cells of Lattice's ECP5 for simulation, as far as netlists of the array have them, after synthesis and after
// placement. Written after Lattice's documents: FPGA-TN-02204 (memory), FPGA-TN-02205 (multipliers), FPGA-DS-02012 (the rest),
// and Project Trellis's description of slices. What a netlist does not use of a cell ends the simulation. Contents of lookup
// tables come as pins (`sim.fpga.netlist.simulated`): as parameters they would make a module of each.

// A buffer of a pin as a design before synthesis names it.
module IB (input I, output O);
  assign O = I;
endmodule

module OBZ (input I, T, output O);
  assign O = I;
  always @* if (T) $fatal(1, "OBZ that lets go of its pin is not modelled");
endmodule

// The same by its direction: a netlist calls both TRELLIS_IO. B is the pin.
module TRELLIS_IO_INPUT #(parameter DIR = "INPUT") (input B, I, T, output O);
  assign O = B;
endmodule

module TRELLIS_IO_OUTPUT #(parameter DIR = "OUTPUT") (output B, input I, T, output O);
  assign B = I;
endmodule

module LUT4 (input [15:0] INIT, input A, B, C, D, output Z);
  assign Z = INIT[{D, C, B, A}];
endmodule

module PFUMX (input ALUT, BLUT, C0, output Z);
  assign Z = C0 ? ALUT : BLUT;
endmodule

module L6MUX21 (input D0, D1, SD, output Z);
  assign Z = SD ? D1 : D0;
endmodule

// One bit of a carry chain. The carry is that of the lookup table, or, where this is 0, of its half for A and B alone. With
// INJECT neither a carry comes in nor is one made where the table is 0.
module eie_carry #(parameter INJECT = 0) (input [15:0] INIT, input A, B, C, D, CIN, output S, COUT);
  wire whole = INIT[{D, C, B, A}], half = INIT[{B, A}];
  assign S = whole ^ (INJECT ? 1'b0 : CIN);
  assign COUT = whole ? CIN : INJECT ? 1'b0 : half;
endmodule

module CCU2C #(
    parameter INJECT1_0 = "YES", INJECT1_1 = "YES"
) (input [15:0] INIT0, INIT1, input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
  wire between;
  eie_carry #(.INJECT(INJECT1_0 == "YES")) first(INIT0, A0, B0, C0, D0, CIN, S0, between);
  eie_carry #(.INJECT(INJECT1_1 == "YES")) second(INIT1, A1, B1, C1, D1, between, S1, COUT);
endmodule

// A flip-flop with an enable, and a set or reset with the clock. After placement, SD says that data comes from DI
// (the table beside it); else from M.
module TRELLIS_FF #(
    parameter GSR = "ENABLED", CEMUX = "1", CLKMUX = "CLK", LSRMUX = "LSR", SRMODE = "LSR_OVER_CE", REGSET = "RESET",
    parameter LSRMODE = "LSR", SD = "1"
) (input CLK, LSR, CE, DI, M, output reg Q);
  localparam ONE = REGSET == "SET";
  wire data = SD == "0" ? M : DI;
  wire enable = CEMUX == "1" ? 1'b1 : CEMUX == "0" ? 1'b0 : CEMUX == "INV" ? ~CE : CE;
  wire set = LSRMUX == "INV" ? ~LSR : LSR;
  wire clock = CLKMUX == "INV" ? ~CLK : CLK;
  initial begin
    Q = ONE;
    if (LSRMODE != "LSR" || SRMODE == "CE_OVER_LSR") $fatal(1, "TRELLIS_FF %s %s is not modelled", LSRMODE, SRMODE);
  end
  generate
    if (SRMODE == "ASYNC") begin
      always @(posedge clock or posedge set) if (set) Q <= ONE; else if (enable) Q <= data;
    end else begin
      always @(posedge clock) if (set) Q <= ONE; else if (enable) Q <= data;
    end
  endgenerate
endmodule

// 16 words of 4 bits, written with the clock, read within a cycle.
module TRELLIS_DPR16X4 #(
    parameter WCKMUX = "WCK", WREMUX = "WRE", parameter [63:0] INITVAL = 0
) (input [3:0] DI, WAD, RAD, input WRE, WCK, output [3:0] DO);
  reg [3:0] words[0:15];
  integer n;
  wire write = WREMUX == "1" ? 1'b1 : WREMUX == "INV" ? ~WRE : WRE;
  initial for (n = 0; n < 16; n = n + 1) words[n] = INITVAL[4*n +: 4];
  always @(posedge WCK) if (write) words[WAD] <= DI;
  assign DO = words[RAD];
  initial if (WCKMUX == "INV") $fatal(1, "TRELLIS_DPR16X4 written at the other edge is not modelled");
endmodule

// After placement a lookup table is a TRELLIS_COMB, here by what it is used as: alone; with the multiplexer behind it and the
// table beside it (PFUMX), or behind two others (L6MUX21); half of a carry pair; a 16-word memory of one bit.
module TRELLIS_COMB_LOGIC (input [15:0] INITVAL, input A, B, C, D, output F);
  assign F = INITVAL[{D, C, B, A}];
endmodule

module TRELLIS_COMB_PFUMX (input [15:0] INITVAL, input A, B, C, D, M, F1, output F, OFX);
  assign F = INITVAL[{D, C, B, A}];
  assign OFX = M ? F1 : F;
endmodule

module TRELLIS_COMB_L6MUX21 (input [15:0] INITVAL, input A, B, C, D, M, FXA, FXB, output F, OFX);
  assign F = INITVAL[{D, C, B, A}];
  assign OFX = M ? FXB : FXA;
endmodule

module TRELLIS_COMB_CCU2 #(parameter CCU2_INJECT1 = "NO") (input [15:0] INITVAL, input A, B, C, D, FCI, output F, FCO);
  eie_carry #(.INJECT(CCU2_INJECT1 == "YES")) carry(INITVAL, A, B, C, D, FCI, F, FCO);
endmodule

module TRELLIS_COMB_DPRAM #(
    parameter [15:0] INITVAL = 0, parameter WREMUX = "WRE", WCKMUX = "WCK"
) (input A, B, C, D, WD, WAD0, WAD1, WAD2, WAD3, WRE, WCK, output F);
  reg [15:0] words = INITVAL;
  wire write = WREMUX == "INV" ? ~WRE : WRE;
  always @(posedge WCK) if (write) words[{WAD3, WAD2, WAD1, WAD0}] <= WD;
  assign F = words[{A, C, B, D}];  // that is how the read address is wired
  initial if (WCKMUX == "INV") $fatal(1, "a memory that is written at the other edge is not modelled");
endmodule

// After placement: hands the write port of a memory of lookup tables on.
module TRELLIS_RAMW (
    input A0, A1, B0, B1, C0, C1, D0, D1,
    output WDO0, WDO1, WDO2, WDO3, WADO0, WADO1, WADO2, WADO3
);
  assign {WDO3, WDO2, WDO1, WDO0} = {B1, D1, A1, C1};
  assign {WADO3, WADO2, WADO1, WADO0} = {A0, C0, B0, D0};
endmodule

module DCCA (input CLKI, CE, output CLKO);
  assign CLKO = CLKI;
endmodule

// Block RAM, port A written and port B read: 1, 2, 4, 9, 18 or 36 bits wide. Addresses count bits; a word of 18 or 36 bits has
// byte enables in place of its lowest address bits. 36 bits come and go by both ports' data pins, and of the word read the
// low half leaves at A.
module DP16KD #(
    parameter DATA_WIDTH_A = 18, DATA_WIDTH_B = 18, REGMODE_A = "NOREG", REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC", ASYNC_RESET_RELEASE = "SYNC", CSDECODE_A = "0b000", CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL", WRITEMODE_B = "NORMAL", CLKAMUX = "CLKA", CLKBMUX = "CLKB", GSR = "ENABLED",
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0, INITVAL_04 = 0, INITVAL_05
    = 0, INITVAL_06 = 0, INITVAL_07 = 0,
    parameter [319:0] INITVAL_08 = 0, INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0, INITVAL_0C = 0, INITVAL_0D
    = 0, INITVAL_0E = 0, INITVAL_0F = 0,
    parameter [319:0] INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0, INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15
    = 0, INITVAL_16 = 0, INITVAL_17 = 0,
    parameter [319:0] INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0, INITVAL_1D
    = 0, INITVAL_1E = 0, INITVAL_1F = 0,
    parameter [319:0] INITVAL_20 = 0, INITVAL_21 = 0, INITVAL_22 = 0, INITVAL_23 = 0, INITVAL_24 = 0, INITVAL_25
    = 0, INITVAL_26 = 0, INITVAL_27 = 0,
    parameter [319:0] INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0, INITVAL_2C = 0, INITVAL_2D
    = 0, INITVAL_2E = 0, INITVAL_2F = 0,
    parameter [319:0] INITVAL_30 = 0, INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35
    = 0, INITVAL_36 = 0, INITVAL_37 = 0,
    parameter [319:0] INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0, INITVAL_3B = 0, INITVAL_3C = 0, INITVAL_3D
    = 0, INITVAL_3E = 0, INITVAL_3F = 0,
    parameter INIT_DATA = "STATIC", WID = 0
) (
    input ADA0, ADA1, ADA2, ADA3, ADA4, ADA5, ADA6, ADA7, ADA8, ADA9, ADA10, ADA11, ADA12, ADA13, ADB0, ADB1,
    ADB2, ADB3, ADB4, ADB5, ADB6, ADB7, ADB8, ADB9, ADB10, ADB11, ADB12, ADB13, DIA0, DIA1, DIA2, DIA3, DIA4,
    DIA5, DIA6, DIA7, DIA8, DIA9, DIA10, DIA11, DIA12, DIA13, DIA14, DIA15, DIA16, DIA17, DIB0, DIB1, DIB2,
    DIB3, DIB4, DIB5, DIB6, DIB7, DIB8, DIB9, DIB10, DIB11, DIB12, DIB13, DIB14, DIB15, DIB16, DIB17,
    input CLKA, CEA, WEA, OCEA, RSTA, CSA0, CSA1, CSA2, CLKB, CEB, WEB, OCEB, RSTB, CSB0, CSB1, CSB2,
    output DOA0, DOA1, DOA2, DOA3, DOA4, DOA5, DOA6, DOA7, DOA8, DOA9, DOA10, DOA11, DOA12, DOA13, DOA14, DOA15,
    DOA16, DOA17, DOB0, DOB1, DOB2, DOB3, DOB4, DOB5, DOB6, DOB7, DOB8, DOB9, DOB10, DOB11, DOB12, DOB13, DOB14,
    DOB15, DOB16, DOB17
);
  reg [8:0] bytes[0:2047];
  reg [35:0] found;
  integer n;
  wire [13:0] to = {ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0};
  wire [13:0] from = {ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0};
  wire [35:0] given = {DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1, DIB0,
    DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1, DIA0};
  assign {DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1, DOB0,
    DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1, DOA0} = DATA_WIDTH_B == 36 ? found : {found[17:0], 18'b0};
  initial begin
    if (REGMODE_B != "NOREG") $fatal(1, "DP16KD with an output register is not modelled");
    found = 0;
    for (n = 0; n < 2048; n = n + 1) bytes[n] = 0;
  end
  always @(posedge CLKA)
    if (CEA && WEA)
      case (DATA_WIDTH_A)
        36: for (n = 0; n < 4; n = n + 1) if (to[n]) bytes[{to[13:5], 2'b0} + n[10:0]] <= given[9*n +: 9];
        18: for (n = 0; n < 2; n = n + 1) if (to[n]) bytes[{to[13:4], 1'b0} + n[10:0]] <= given[9*n +: 9];
        9: bytes[to[13:3]] <= given[8:0];
        4: bytes[to[13:3]][4*to[2] +: 4] <= given[3:0];
        2: bytes[to[13:3]][2*to[2:1] +: 2] <= given[1:0];
        1: bytes[to[13:3]][to[2:0]] <= given[0];
        default: $fatal(1, "DP16KD: DATA_WIDTH_A %0d", DATA_WIDTH_A);
      endcase
  always @(posedge CLKB)
    if (RSTB) found <= 0;
    else if (CEB)
      case (DATA_WIDTH_B)
        36: for (n = 0; n < 4; n = n + 1) found[9*n +: 9] <= bytes[{from[13:5], 2'b0} + n[10:0]];
        18: for (n = 0; n < 2; n = n + 1) found[9*n +: 9] <= bytes[{from[13:4], 1'b0} + n[10:0]];
        9: found <= bytes[from[13:3]];
        4: found <= bytes[from[13:3]][4*from[2] +: 4];
        2: found <= bytes[from[13:3]][2*from[2:1] +: 2];
        1: found <= bytes[from[13:3]][from[2:0]];
        default: $fatal(1, "DP16KD: DATA_WIDTH_B %0d", DATA_WIDTH_B);
      endcase
endmodule

// 18 by 18 bits, each signed or not, all registers passed by.
module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE", REG_INPUTA_CE = "CE0", REG_INPUTA_RST = "RST0",
    parameter REG_INPUTB_CLK = "NONE", REG_INPUTB_CE = "CE0", REG_INPUTB_RST = "RST0",
    parameter REG_INPUTC_CLK = "NONE", REG_INPUTC_CE = "CE0", REG_INPUTC_RST = "RST0",
    parameter REG_PIPELINE_CLK = "NONE", REG_PIPELINE_CE = "CE0", REG_PIPELINE_RST = "RST0",
    parameter REG_OUTPUT_CLK = "NONE", REG_OUTPUT_CE = "CE0", REG_OUTPUT_RST = "RST0",
    parameter CLK0_DIV = "ENABLED", CLK1_DIV = "ENABLED", CLK2_DIV = "ENABLED", CLK3_DIV = "ENABLED",
    parameter HIGHSPEED_CLK = "NONE", GSR = "ENABLED", CAS_MATCH_REG = "FALSE", SOURCEB_MODE = "B_SHIFT",
    parameter MULT_BYPASS = "DISABLED", RESETMODE = "SYNC"
) (
    input A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13, A14, A15, A16, A17, B0, B1, B2, B3, B4,
    B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17, C0, C1, C2, C3, C4, C5, C6, C7, C8, C9, C10,
    C11, C12, C13, C14, C15, C16, C17, SRIA0, SRIA1, SRIA2, SRIA3, SRIA4, SRIA5, SRIA6, SRIA7, SRIA8, SRIA9,
    SRIA10, SRIA11, SRIA12, SRIA13, SRIA14, SRIA15, SRIA16, SRIA17, SRIB0, SRIB1, SRIB2, SRIB3, SRIB4, SRIB5,
    SRIB6, SRIB7, SRIB8, SRIB9, SRIB10, SRIB11, SRIB12, SRIB13, SRIB14, SRIB15, SRIB16, SRIB17,
    input SIGNEDA, SIGNEDB, SOURCEA, SOURCEB, CLK0, CLK1, CLK2, CLK3, CE0, CE1, CE2, CE3, RST0, RST1, RST2, RST3,
    output P0, P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11, P12, P13, P14, P15, P16, P17, P18, P19, P20, P21,
    P22, P23, P24, P25, P26, P27, P28, P29, P30, P31, P32, P33, P34, P35, SIGNEDP
);
  initial
    if (REG_INPUTA_CLK != "NONE" || REG_INPUTB_CLK != "NONE" || REG_PIPELINE_CLK != "NONE" || REG_OUTPUT_CLK != "NONE")
      $fatal(1, "MULT18X18D with registers is not modelled");
  wire [17:0] a = {A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0};
  wire [17:0] b = {B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0};
  wire signed [18:0] left = {SIGNEDA & a[17], a}, right = {SIGNEDB & b[17], b};
  wire signed [37:0] product = left * right;
  assign {P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0} = product[35:0];
  assign SIGNEDP = SIGNEDA | SIGNEDB;
endmodule
