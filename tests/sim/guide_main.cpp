// The array as Verilator made it, behind the functions that docs/host.md wants of a platform. Prints the results of three
// runs: as the guide does it, by interrupt, and after a stream that was wrong.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

extern "C" {
#include "eie.h"
#include "frames.h"
uint32_t eie_read32(uint32_t offset);
void eie_write32(uint32_t offset, uint32_t value);
void eie_send_packet(const void* beats, size_t bytes);
void eie_stop_stream(void);
int network_run(const uint32_t* frames, uint32_t samples, uint32_t* results);
void eie_load_lines(uint32_t first, size_t count, const uint32_t* lines);
void eie_fetch_lines(uint32_t first, size_t count, uint32_t* lines);
void eie_start(uint32_t first, uint32_t samples);
uint32_t eie_wait(void);
void eie_enable_interrupt(void);
void eie_interrupt_handler(void);
void eie_recover(void);
uint32_t eie_record(uint32_t descriptor, unsigned part);
void send_all(void);
}

static Vtop* top;
static long cycles;
static std::deque<std::vector<uint32_t>> packets;
static size_t beat;
static bool damage;  // the next header

double sc_time_stamp() { return cycles; }

static void die(const char* why) {
  fprintf(stderr, "%s in cycle %ld\n", why, cycles);
  exit(3);
}

// One cycle. What stands at the pins was set before; the stream gives a beat if it has one.
static void tick() {
  if (++cycles > 2000000) die("watchdog");
  top->s_axis_weights_tvalid = !packets.empty();
  if (!packets.empty()) {
    for (int n = 0; n < 4; n++) top->s_axis_weights_tdata[n] = packets.front()[4 * beat + n];
    top->s_axis_weights_tlast = 4 * (beat + 1) == packets.front().size();
  }
  top->aclk = 0;
  top->eval();
  bool taken = top->s_axis_weights_tvalid && top->s_axis_weights_tready;
  top->aclk = 1;
  top->eval();
  if (taken && 4 * ++beat == packets.front().size()) {
    packets.pop_front();
    beat = 0;
  }
}

uint32_t eie_read32(uint32_t offset) {
  top->s_axi_araddr = offset;
  top->s_axi_arvalid = 1;
  top->s_axi_rready = 1;
  while (!top->s_axi_arready) tick();
  tick();
  top->s_axi_arvalid = 0;
  while (!top->s_axi_rvalid) tick();
  uint32_t data = top->s_axi_rdata;
  if (top->s_axi_rresp) die("a read is answered with an error");
  tick();
  top->s_axi_rready = 0;
  return data;
}

void eie_write32(uint32_t offset, uint32_t value) {
  top->s_axi_awaddr = offset;
  top->s_axi_wdata = value;
  top->s_axi_wstrb = 15;
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_bready = 1;
  while (!(top->s_axi_awready && top->s_axi_wready)) tick();
  tick();
  top->s_axi_awvalid = top->s_axi_wvalid = 0;
  while (!top->s_axi_bvalid) tick();
  if (top->s_axi_bresp) die("a write is answered with an error");
  tick();
  top->s_axi_bready = 0;
}

void eie_send_packet(const void* beats, size_t bytes) {
  std::vector<uint32_t> words(bytes / 4);
  memcpy(words.data(), beats, bytes);
  if (damage) words[0] = 0xF;  // of a memory that is not there
  damage = false;
  packets.push_back(words);
}

void eie_stop_stream(void) {
  packets.clear();
  beat = 0;
}

static void print(const char* name, const std::vector<uint32_t>& words) {
  printf("%s", name);
  for (uint32_t word : words) printf(" %x", word);
  printf("\n");
}

int main(int argc, char** argv) {
  Verilated::commandArgs(argc, argv);
  top = new Vtop;
  top->aresetn = 0;
  for (int n = 0; n < 4; n++) tick();
  top->aresetn = 1;
  tick();

  std::vector<uint32_t> results(SAMPLES * LINES * LINE);
  if (int error = network_run(frames, SAMPLES, results.data())) {
    printf("error %d\n", error);
    return 1;
  }
  print("guide", results);
  printf("cycles %u\n", eie_read32(EIE_REG_CYCLES));
  printf("written %u\n", eie_record(LAST, EIE_RECORD_WRITTEN));

  for (auto& word : results) word = 0;
  eie_enable_interrupt();
  eie_load_lines(0, SAMPLES * FRAME, frames);
  send_all();
  if (top->irq) die("an interrupt before the run");
  eie_start(0, SAMPLES);
  while (!top->irq) tick();
  eie_interrupt_handler();
  tick();
  if (top->irq) die("the interrupt stays");
  for (uint32_t n = 0; n < SAMPLES; n++) eie_fetch_lines(n * FRAME + FIRST, LINES, &results[n * LINES * LINE]);
  print("interrupt", results);

  eie_load_lines(0, SAMPLES * FRAME, frames);
  damage = true;
  send_all();
  eie_start(0, SAMPLES);
  printf("wrong %u\n", eie_wait());
  eie_recover();
  if (int error = network_run(frames, SAMPLES, results.data())) {
    printf("error %d\n", error);
    return 1;
  }
  print("recovered", results);
  top->final();
  return 0;
}
