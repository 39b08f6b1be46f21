// The system that LiteX made, behind the functions that docs/host.md wants of a platform: a processor on its Wishbone bus.
// Prints the map that streams out of a run, twice: the second time the end is waited for by the interrupt.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#include "Vsoc.h"
#include "verilated.h"

extern "C" {
#include "eie.h"
#include "frames.h"
uint32_t eie_read32(uint32_t offset);
void eie_write32(uint32_t offset, uint32_t value);
void eie_send_packet(const void*, size_t);
void eie_stop_stream(void);
void eie_send_map(const void* beats, size_t bytes);
void eie_receive_map(void* beats, size_t bytes);
void eie_wait_received(void);
int network_run(const uint32_t* frames, uint32_t* const* maps, uint32_t samples, uint32_t* results);
void eie_enable_interrupt(void);
void eie_interrupt_handler(void);
void eie_start(uint32_t first, uint32_t samples);
void stream_all(uint32_t* const* maps);
}

static Vsoc* top;
static long cycles;
static std::deque<uint32_t> given;
static uint32_t* wanted;
static size_t left_words;

double sc_time_stamp() { return cycles; }

static void die(const char* why) {
  fprintf(stderr, "%s in cycle %ld\n", why, cycles);
  exit(3);
}

static void tick() {
  if (++cycles > 1000000) die("watchdog");
  top->acts_in_valid = given.size() >= 4;
  for (int n = 0; n < 4 && top->acts_in_valid; n++) top->acts_in_data[n] = given[n];
  top->acts_out_ready = left_words > 0;
  top->sys_clk = 0;
  top->eval();
  bool taken = top->acts_in_valid && top->acts_in_ready, comes = top->acts_out_valid && top->acts_out_ready;
  for (int n = 0; n < 4 && comes; n++) *wanted++ = top->acts_out_data[n];
  if (comes) left_words -= 4;
  if (taken) given.erase(given.begin(), given.begin() + 4);
  top->sys_clk = 1;
  top->eval();
}

static uint32_t transfer(uint32_t offset, bool write, uint32_t value) {
  top->adr = (ORIGIN + offset) >> 2;
  top->dat_w = value;
  top->sel = 15;
  top->we = write;
  top->cyc = top->stb = 1;
  do {
    top->sys_clk = 0;
    top->eval();
    if (top->ack || top->err) break;
    tick();
  } while (true);
  if (top->err) die("an access is answered with an error");
  uint32_t found = top->dat_r;
  tick();
  top->cyc = top->stb = 0;
  tick();
  return found;
}

uint32_t eie_read32(uint32_t offset) { return transfer(offset, false, 0); }
void eie_write32(uint32_t offset, uint32_t value) { transfer(offset, true, value); }
void eie_send_packet(const void*, size_t) { die("a packet of weights"); }
void eie_stop_stream(void) { given.clear(); }

void eie_send_map(const void* beats, size_t bytes) {
  const uint32_t* words = static_cast<const uint32_t*>(beats);
  given.insert(given.end(), words, words + bytes / 4);
}

void eie_receive_map(void* beats, size_t bytes) {
  wanted = static_cast<uint32_t*>(beats);
  left_words = bytes / 4;
}

void eie_wait_received(void) {
  while (left_words) tick();
}

static void print(const char* name, const std::vector<uint32_t>& words) {
  printf("%s", name);
  for (uint32_t word : words) printf(" %x", word);
  printf("\n");
}

int main(int argc, char** argv) {
  Verilated::commandArgs(argc, argv);
  top = new Vsoc;
  top->sys_rst = 1;
  for (int n = 0; n < 4; n++) tick();
  top->sys_rst = 0;
  tick();
  std::vector<uint32_t> in(input_map, input_map + map_sizes[INPUT_MAP]), out(map_sizes[OUTPUT_MAP]);
  uint32_t* maps[2];
  maps[INPUT_MAP] = in.data();
  maps[OUTPUT_MAP] = out.data();
  if (int error = network_run(nullptr, maps, SAMPLES, nullptr)) {
    printf("error %d\n", error);
    return 1;
  }
  print("polled", out);
  for (auto& word : out) word = 0;
  eie_enable_interrupt();
  if (top->irq) die("an interrupt before the run");
  eie_start(0, SAMPLES);
  stream_all(maps);
  while (!top->irq) tick();
  eie_interrupt_handler();
  tick();
  if (top->irq) die("the interrupt stays");
  print("interrupted", out);
  top->final();
  return 0;
}
