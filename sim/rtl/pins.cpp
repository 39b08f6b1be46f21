// The array as Verilator made it, as a library: accesses at its AXI4-Lite port, beats of its streams, resets.
// Nothing here ends the process: what an assertion of the design says is kept, and an access that is not answered says so.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

static std::string failure;

static void note(const char* file, int line, const char* text) {
  if (failure.empty()) failure = std::string(text ? text : "") + " (" + (file ? file : "") + ":" + std::to_string(line) + ")";
}

void vl_stop(const char* file, int line, const char* text) VL_MT_UNSAFE { note(file, line, text); }
void vl_fatal(const char* file, int line, const char*, const char* text) VL_MT_UNSAFE { note(file, line, text); }
void vl_finish(const char* file, int line, const char* text) VL_MT_UNSAFE { note(file, line, text); }

struct Beat {
  uint32_t word[4];
  bool last;
};

struct Pins {
  VerilatedContext context;
  Vtop* top;
  uint64_t cycles = 0;
  std::deque<Beat> tiles, given, taken;
  size_t room = SIZE_MAX;  // beats that m_axis_acts may bring before it is held back
};

static const int ANSWER = 4000;  // cycles that an access may take

static void tick(Pins* p) {
  Vtop* top = p->top;
  p->cycles++;
#ifdef TILES
  top->s_axis_weights_tvalid = !p->tiles.empty();
  if (!p->tiles.empty()) {
    memcpy(&top->s_axis_weights_tdata[0], p->tiles.front().word, 16);
    top->s_axis_weights_tlast = p->tiles.front().last;
  }
#endif
#ifdef MAPS
  top->s_axis_acts_tvalid = !p->given.empty();
  if (!p->given.empty()) memcpy(&top->s_axis_acts_tdata[0], p->given.front().word, 16);
  top->m_axis_acts_tready = p->taken.size() < p->room;
#endif
  top->aclk = 0;
  top->eval();
#ifdef TILES
  bool tile = top->s_axis_weights_tvalid && top->s_axis_weights_tready;
#endif
#ifdef MAPS
  bool row = top->s_axis_acts_tvalid && top->s_axis_acts_tready;
  if (top->m_axis_acts_tvalid && top->m_axis_acts_tready) {
    Beat beat{};
    memcpy(beat.word, &top->m_axis_acts_tdata[0], 16);
    p->taken.push_back(beat);
  }
#endif
  top->aclk = 1;
  top->eval();
#ifdef TILES
  if (tile) p->tiles.pop_front();
#endif
#ifdef MAPS
  if (row) p->given.pop_front();
#endif
}

extern "C" {

Pins* pins_new(uint32_t seed) {
  failure.clear();
  Pins* p = new Pins;
  p->context.randReset(2);
  p->context.randSeed(seed);
  p->context.fatalOnError(false);
  const char* arguments[] = {"eie"};  // the memories ask for some
  p->context.commandArgs(1, arguments);
  p->top = new Vtop(&p->context);
  Vtop* top = p->top;
  top->aresetn = 0;
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_arvalid = 0;
  top->s_axi_bready = top->s_axi_rready = 0;
  for (int n = 0; n < 4; n++) tick(p);
  top->aresetn = 1;
  for (int n = 0; n < 2; n++) tick(p);
  return p;
}

void pins_free(Pins* p) {
  delete p->top;
  delete p;
}

void pins_reset(Pins* p, int cycles) {
  Vtop* top = p->top;
  top->aresetn = 0;
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_arvalid = 0;
  top->s_axi_bready = top->s_axi_rready = 0;
  for (int n = 0; n < cycles; n++) tick(p);
  top->aresetn = 1;
  for (int n = 0; n < 2; n++) tick(p);
}

void pins_ticks(Pins* p, int count) {
  for (int n = 0; n < count; n++) tick(p);
}

uint64_t pins_cycles(Pins* p) { return p->cycles; }

int pins_irq(Pins* p) { return p->top->irq; }

// The response (0 or 2), or -1 if none comes.
int pins_write(Pins* p, uint32_t offset, uint32_t value, int strobes) {
  Vtop* top = p->top;
  top->s_axi_awaddr = offset;
  top->s_axi_wdata = value;
  top->s_axi_wstrb = strobes;
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_bready = 1;
  bool address = false, data = false;
  int n = 0, response = -1;
  for (; n < ANSWER && !(address && data); n++) {
    bool a = top->s_axi_awvalid && top->s_axi_awready, d = top->s_axi_wvalid && top->s_axi_wready;
    tick(p);
    if (a) address = true, top->s_axi_awvalid = 0;
    if (d) data = true, top->s_axi_wvalid = 0;
  }
  for (; n < ANSWER && !top->s_axi_bvalid; n++) tick(p);
  if (top->s_axi_bvalid) response = top->s_axi_bresp;
  tick(p);
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_bready = 0;
  return response;
}

int pins_read(Pins* p, uint32_t offset, uint32_t* value) {
  Vtop* top = p->top;
  top->s_axi_araddr = offset;
  top->s_axi_arvalid = top->s_axi_rready = 1;
  int n = 0, response = -1;
  for (; n < ANSWER && !top->s_axi_arready; n++) tick(p);
  tick(p);
  top->s_axi_arvalid = 0;
  for (; n < ANSWER && !top->s_axi_rvalid; n++) tick(p);
  if (top->s_axi_rvalid) {
    response = top->s_axi_rresp;
    *value = top->s_axi_rdata;
  }
  tick(p);
  top->s_axi_rready = 0;
  return response;
}

// Until one is not answered with 0; how many were.
int pins_write_block(Pins* p, uint32_t offset, const uint32_t* values, int count) {
  int n = 0;
  while (n < count && pins_write(p, offset, values[n], 15) == 0) n++;
  return n;
}

int pins_read_block(Pins* p, uint32_t offset, uint32_t* values, int count) {
  int n = 0;
  while (n < count && pins_read(p, offset, values + n) == 0) n++;
  return n;
}

void pins_send(Pins* p, const uint32_t* words, const uint8_t* lasts, int beats) {
  for (int n = 0; n < beats; n++) {
    Beat beat;
    memcpy(beat.word, words + 4 * n, 16);
    beat.last = lasts[n];
    p->tiles.push_back(beat);
  }
}

void pins_give(Pins* p, const uint32_t* words, int beats) {
  for (int n = 0; n < beats; n++) {
    Beat beat{};
    memcpy(beat.word, words + 4 * n, 16);
    p->given.push_back(beat);
  }
}

int pins_take(Pins* p, uint32_t* words, int most) {
  int n = 0;
  for (; n < most && !p->taken.empty(); n++) {
    memcpy(words + 4 * n, p->taken.front().word, 16);
    p->taken.pop_front();
  }
  return n;
}

void pins_room(Pins* p, int64_t beats) { p->room = beats < 0 ? SIZE_MAX : beats; }

int pins_waiting(Pins* p, int which) { return which ? p->given.size() : p->tiles.size(); }

void pins_forget(Pins* p) {
  p->tiles.clear();
  p->given.clear();
  p->taken.clear();
}

// What an assertion of the design said first; empty if none did.
const char* pins_failure() { return failure.c_str(); }
}

double sc_time_stamp() { return 0; }
