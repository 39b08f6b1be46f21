// Main program of a simulator that writes a waveform: cocotb's, with a file that holds what was asked for.
//
// +eie_waves_depth=N      levels of modules below the top, which is the first; all without it
// +eie_waves_from=T, +eie_waves_to=T     time steps since the bench began a run, from the first to before the last; the
//                         bench says when that was in the environment variable EIE_RUN_BEGAN, which it sets meanwhile
// +eie_waves_limit=BYTES  of an FST, which ends soon after
//
// An FST writer holds values in memory and puts them into the file block by block, so only whole blocks can be left
// out. This asks for blocks that are small beside the limit, and writes no more of them once the file is longer.
// What is beyond the limit is dropped afterwards (sim/rtl/fst.py); of a VCD, while it is written (sim/rtl/vcd.py).

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "Vtop.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Writer = VerilatedFstC;
#else
#include "verilated_vcd_c.h"
using Writer = VerilatedVcdC;
#endif

// The number behind a plusarg, or `without`.
static uint64_t plusarg(const char* name, uint64_t without) {
    const std::string argument = Verilated::commandArgsPlusMatch(name);
    return argument.empty() ? without : std::stoull(argument.substr(argument.find('=') + 1));
}

class Chosen final : public Writer {
    // Time steps of the first block, and at most of any: what one block can be too long by stays bounded.
    static constexpr uint64_t FIRST = 64, MOST = 16384;
    // A block should be about this share of the limit: small enough to cut at, large enough to compress well.
    static constexpr uint64_t SHARE = 64;

    std::string m_name;
    uint64_t m_limit = UINT64_MAX, m_before = 0, m_steps = FIRST, m_left = FIRST;
    uint64_t m_from = 0, m_to = UINT64_MAX;
    bool m_ended = false;

    bool inside(uint64_t time) const {
        if (m_to == UINT64_MAX) return true;
        const char* began = std::getenv("EIE_RUN_BEGAN");
        if (began == nullptr) return false;
        const uint64_t start = std::strtoull(began, nullptr, 10);
        return time >= start + m_from && time < start + m_to;
    }

public:
    void open(const char* name) {
        m_name = name;
        m_limit = plusarg("eie_waves_limit=", UINT64_MAX);
        m_from = plusarg("eie_waves_from=", 0);
        m_to = plusarg("eie_waves_to=", UINT64_MAX);
        const uint64_t depth = plusarg("eie_waves_depth=", 0);
        if (depth) dumpvars(static_cast<int>(depth), "eie_accelerator");
        Writer::open(name);
    }

    void dump(uint64_t time) {
        if (m_ended || !inside(time)) return;
        Writer::dump(time);
#if VM_TRACE_FST
        if (--m_left) return;
        const uint64_t written = std::filesystem::file_size(m_name);
        m_ended = written > m_limit;
        if (written - m_before < m_limit / SHARE && m_steps < MOST) m_steps *= 2;
        m_before = written;
        m_left = m_steps;
        flush();
#endif
    }
};

// The type that cocotb's main program opens.
#define VerilatedFstC Chosen
#define VerilatedVcdC Chosen
#include "verilator.cpp"
