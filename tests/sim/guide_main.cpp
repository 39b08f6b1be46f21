// The array as Verilator made it, behind the functions that docs/host.md wants of a platform. Prints the results of three
// runs: as the guide does it, by interrupt, and after a stream that was wrong.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <utility>
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
void eie_send_map(const void* beats, size_t bytes);
void eie_receive_map(void* beats, size_t bytes);
void eie_wait_received(void);
int network_run(const uint32_t* frames, uint32_t* const* maps, uint32_t samples, uint32_t* results);
void eie_load_lines(uint32_t first, size_t count, const uint32_t* lines);
void eie_fetch_lines(uint32_t first, size_t count, uint32_t* lines);
void eie_start(uint32_t first, uint32_t samples);
uint32_t eie_wait(void);
void eie_enable_interrupt(void);
void eie_interrupt_handler(void);
void eie_recover(void);
uint32_t eie_record(uint32_t descriptor, unsigned part);
void send_all(void);
void stream_all(uint32_t* const* maps);
}

static Vtop* top;
static long cycles;
static std::deque<std::vector<uint32_t>> packets;
static size_t beat;
static bool damage;  // the next header
static std::deque<uint32_t> given;  // words for s_axis_acts
static std::deque<std::pair<uint32_t*, size_t>> wanted;  // buffers for m_axis_acts, words that are left
static unsigned chance = 1;  // both streams wait at random
static bool offered;

static bool now() {
  chance = chance * 1103515245u + 12345u;
  return chance >> 16 & 1;
}

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
  offered = given.size() >= 4 && (offered || now());  // what is offered stays
  top->s_axis_acts_tvalid = offered;
  for (int n = 0; n < 4 && offered; n++) top->s_axis_acts_tdata[n] = given[n];
  top->m_axis_acts_tready = !wanted.empty() && now();
  top->aclk = 0;
  top->eval();
  if (top->s_axis_acts_tvalid && top->s_axis_acts_tready) {
    given.erase(given.begin(), given.begin() + 4);
    offered = false;
  }
  if (top->m_axis_acts_tvalid && top->m_axis_acts_tready) {
    for (int n = 0; n < 4; n++) *wanted.front().first++ = top->m_axis_acts_tdata[n];
    if (!(wanted.front().second -= 4)) wanted.pop_front();
  }
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

void eie_send_map(const void* beats, size_t bytes) {
  const uint32_t* words = static_cast<const uint32_t*>(beats);
  given.insert(given.end(), words, words + bytes / 4);
}

void eie_receive_map(void* beats, size_t bytes) { wanted.push_back({static_cast<uint32_t*>(beats), bytes / 4}); }

void eie_wait_received(void) {
  while (!wanted.empty()) tick();
}

void eie_stop_stream(void) {
  packets.clear();
  given.clear();
  wanted.clear();
  offered = false;
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
  top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_arvalid = 0;  // pins begin at random
  top->s_axi_bready = top->s_axi_rready = 0;
  for (int n = 0; n < 4; n++) tick();
  top->aresetn = 1;
  tick();

  std::vector<uint32_t> results(SAMPLES * LINES * LINE);
  std::vector<std::vector<uint32_t>> buffers;
  std::vector<uint32_t*> maps;
  for (uint32_t n = 0; n < MAPS; n++) {
    buffers.emplace_back(map_sizes[n]);
    if (n == INPUT_MAP) buffers.back().assign(input_map, input_map + map_sizes[n]);
    maps.push_back(buffers.back().data());
  }
  if (int error = network_run(frames, maps.data(), SAMPLES, results.data())) {
    printf("error %d\n", error);
    return 1;
  }
  print("guide", MAPS ? buffers[OUTPUT_MAP] : results);
  printf("cycles %u\n", eie_read32(EIE_REG_CYCLES));
  printf("written %u\n", eie_record(LAST, EIE_RECORD_WRITTEN));
  if (MAPS) {  // given up in the middle of the streams, and run again
    eie_start(0, SAMPLES);
    eie_send_map(maps[INPUT_MAP], 64);
    for (int n = 0; n < 40; n++) tick();
    eie_recover();
    for (auto& word : buffers[OUTPUT_MAP]) word = 0;
    eie_start(0, SAMPLES);
    stream_all(maps.data());
    printf("wrong %u\n", eie_wait());
    print("recovered", buffers[OUTPUT_MAP]);
    top->final();
    return 0;
  }

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
  if (int error = network_run(frames, maps.data(), SAMPLES, results.data())) {
    printf("error %d\n", error);
    return 1;
  }
  print("recovered", results);
  top->final();
  return 0;
}
