// Main program of a simulator that writes its waveform as FST: cocotb's, with a file that ends after a number of bytes.
//
// An FST writer holds values in memory and puts them into the file block by block, so only whole blocks can be left
// out. This asks for blocks that are small beside the limit, and writes no more of them once the file is longer.
// What is beyond the limit is dropped afterwards (sim/rtl/fst.py).

#include <cstdint>
#include <filesystem>
#include <string>

#include "Vtop.h"
#include "verilated.h"
#include "verilated_fst_c.h"

class LimitedFst final : public VerilatedFstC {
    // Time steps of the first block, and at most of any: what one block can be too long by stays bounded.
    static constexpr uint64_t FIRST = 64, MOST = 16384;
    // A block should be about this share of the limit: small enough to cut at, large enough to compress well.
    static constexpr uint64_t SHARE = 64;

    std::string m_name;
    uint64_t m_limit = UINT64_MAX, m_before = 0, m_steps = FIRST, m_left = FIRST;
    bool m_ended = false;

public:
    void open(const char* name) {
        m_name = name;
        const std::string argument = Verilated::commandArgsPlusMatch("eie_waves_limit=");
        if (!argument.empty()) m_limit = std::stoull(argument.substr(argument.find('=') + 1));
        VerilatedFstC::open(name);
    }

    void dump(uint64_t time) {
        if (m_ended) return;
        VerilatedFstC::dump(time);
        if (--m_left) return;
        const uint64_t written = std::filesystem::file_size(m_name);
        m_ended = written > m_limit;
        if (written - m_before < m_limit / SHARE && m_steps < MOST) m_steps *= 2;
        m_before = written;
        m_left = m_steps;
        flush();
    }
};

#define VerilatedFstC LimitedFst  // the type that cocotb's main program opens
#include "verilator.cpp"
