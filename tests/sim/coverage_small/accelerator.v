module eie_small(go, kind, clk, rst, out);
  wire \$1 ;
  wire \$2 ;
  reg [1:0] \$3 ;
  wire [1:0] \$4 ;
  (* src = "hw/small.py:3" *)
  input clk;
  wire clk;
  (* src = "hw/small.py:3" *)
  input rst;
  wire rst;
  (* src = "hw/small.py:4" *)
  input go;
  wire go;
  (* src = "hw/small.py:5" *)
  input [1:0] kind;
  wire [1:0] kind;
  (* src = "amaranth/lib/wiring.py:198" *)
  output out;
  wire out;
  (* src = "hw/small.py:6" *)
  reg [1:0] \state$7  = 2'h0;
  (* src = "hw/small.py:7" *)
  wire \word.first ;
  (* src = "hw/small.py:7" *)
  wire [1:0] word;
  assign \word.first  = word[0];
  assign word = { 1'h0, \$2  };
  assign \$1  = ! (* src = "hw/small.py:9" *) \state$7 ;
  assign \$2  = go & (* src = "hw/small.py:9" *) \$1 ;
  assign out = \$2  | (* src = "hw/small.py:10" *) word[0];
  assign \$4  = go ? (* src = "hw/small.py:11" *) kind : 2'h3;
  (* src = "hw/small.py:6" *)
  always @(posedge clk)
    \state$7  <= \$3 ;
  always @* begin
    \$3  = \state$7 ;
    (* branches = "hw/small.py:12=hw/small.py:13|hw/small.py:14=|else=hw/small.py:17" *)
    if (go) begin
      \$3  = \$4 ;
    end else if (kind[1]) begin
    end else begin
      \$3  = 2'h1;
    end
    (* branches = "hw/small.py:18=hw/small.py:19|hw/small.py:20=hw/small.py:21|hw/small.py:22=" *)
    casez (kind)
      2'h0:
          \$3  = 2'h0;
      2'h1:
          (* branches = "hw/small.py:23=hw/small.py:24" *)
          if (go) begin
            \$3  = 2'h2;
          end
    endcase
    (* branches = "hw/accelerator.py:47=hw/small.py:6" *)
    if (rst) begin
      \$3  = 2'h0;
    end
  end
  cover property (@(posedge clk) !rst && (go && kind == 1)); // bin small-one
  cover property (@(posedge clk) !rst && (go && kind == 2)); // bin small-two
endmodule
