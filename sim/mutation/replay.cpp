// Main program of an array with mutants: cocotb's, and one that replays what benches have recorded for one mutant after
// the other. `+eie_replay` chooses the second; sim/mutation/replay.py says what it is given and what it answers.
//
// A recording is what was at the pins in each cycle. It is not replayed cycle by cycle, since no bench looks at the
// cycle of an answer: each beat is offered when it was, and time stands still at the pins until the array has taken or
// given the beats of that cycle. What is compared is what benches compare: the payload of every beat that the array
// hands out, in order, and that nothing comes that was not asked for.

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#define main cocotb_main
#include "verilator.cpp"
#undef main

unsigned char eie_seen[1 << 16];  // of each mutant, whether it was another bit than that of the array; see record.py

namespace {

// Bytes of a row of a recording, which is one cycle, or several that are alike and in which no beat is handed over, numbers with the highest byte first: as `LAYOUT` in sim/mutation/record.py.
enum At {
    ARESETN = 0, AWVALID = 1, AWADDR = 2, WVALID = 4, WDATA = 5, WSTRB = 9, BREADY = 10, ARVALID = 11, ARADDR = 12,
    RREADY = 14, TVALID = 15, TLAST = 16, TDATA = 17, GVALID = 33, GDATA = 34, MREADY = 50, AWREADY = 51, WREADY = 52,
    BVALID = 53, BRESP = 54, ARREADY = 55, RVALID = 56, RDATA = 57, RRESP = 61, IRQ = 62, TREADY = 63, GREADY = 64,
    MVALID = 65, MLAST = 66, MDATA = 67, LOOK = 83, REPEAT = 84, BYTES = 88,
};
// What LOOK says of the payloads of a cycle.
enum Look { READ = 1, POLL = 2, MAPS = 4, STATUS = 8 };
constexpr uint32_t POLLED = 0xF4;  // of STATUS while a run is under way: refused and error; the rest is a matter of time
constexpr int PATIENCE = 3000;     // cycles that a beat may come later than in the recording

struct Recording {
    std::string name;
    const uint8_t* data;
    size_t rows;
    bool is_long;  // only for mutants that no recording before has made another bit than the array's
};

struct Shared {  // of a mutant, between the processes
    long cycle;     // where its child is, if that dies
    float cpu;      // seconds, of all its children
    bool killed;
};

uint64_t number(const uint8_t* at, int bytes) {
    uint64_t value = 0;
    for (int n = 0; n < bytes; ++n) value = value << 8 | at[n];
    return value;
}

template <class Wide>
void wide(Wide& pin, const uint8_t* at) {
    for (int word = 0; word < 4; ++word) pin[word] = static_cast<uint32_t>(number(at + 12 - 4 * word, 4));
}

template <class Wide>
bool same(const Wide& pin, const uint8_t* at) {
    for (int word = 0; word < 4; ++word)
        if (pin[word] != static_cast<uint32_t>(number(at + 12 - 4 * word, 4))) return false;
    return true;
}

struct Given {  // a channel into the array
    bool ahead = false, done = false;
    bool offer(bool recorded) {
        if (!recorded) ahead = false;
        return recorded && !ahead && !done;
    }
    // Whether the recording may go on.
    bool step(bool taken, bool recorded) {
        if (taken) (recorded ? done : ahead) = true;
        return !recorded || ahead || done;
    }
    void next(bool recorded) {
        if (recorded) ahead = false;
        done = false;
    }
};

struct Taken {  // a channel out of the array
    std::vector<long> beats;  // rows of the recording in which one came
    size_t came = 0, was = 0;
    void next(bool recorded) { was += recorded; }
};

// A run of a recording, tick by tick, which are its cycles and those in which its time stands still.
class Walk {
   public:
    Walk(const Recording& recording, unsigned seed, int learns)
        : recording_(recording), learns_(learns), context_(new VerilatedContext) {
        const std::string seeded = "+verilator+seed+" + std::to_string(seed);
        const char* arguments[] = {"replay", "+eie_replay", "+verilator+rand+reset+2", seeded.c_str()};
        context_->commandArgs(4, arguments);
        top_.reset(new Vtop(context_.get(), ""));
        for (size_t n = 0; n < recording.rows; ++n) {
            const uint8_t* at = recording.data + n * BYTES;
            if (at[BVALID] & at[BREADY]) b.beats.push_back(n);
            if (at[RVALID] & at[RREADY]) r.beats.push_back(n);
            if (at[MVALID] & at[MREADY]) m.beats.push_back(n);
        }
        top_->eie_next = 0;
        top_->s_axi_awprot = top_->s_axi_arprot = 0;
        top_->s_axis_acts_tlast = 0;
    }
    // The mutant is on from the clock edge of the next tick on, and seen by the one behind it.
    void choose(int mutant) { top_->eie_next = mutant; }
    bool ended() const { return n_ >= recording_.rows; }
    long cycle() const { return cycle_; }
    const char* tick();  // how the array has shown that it is another one, or null

   private:
    const Recording& recording_;
    const int learns_;  // where to list what differs, or -1
    std::unique_ptr<VerilatedContext> context_;
    std::unique_ptr<Vtop> top_;
    Given aw, w, ar, tiles, maps;
    Taken b, r, m;
    size_t writes = 0, reads = 0, datas = 0;  // that the array has taken
    int waits = 0, odd = 0;
    size_t n_ = 0;
    uint32_t again_ = 0;  // cycles of this row that are over
    long cycle_ = 0;
};

const char* Walk::tick() {
    Vtop* const top = top_.get();
    const size_t n = n_;
    const uint8_t* at = recording_.data + n * BYTES;
    const bool reset = !at[ARESETN];
    if (reset) {
        b.came = b.was, r.came = r.was, m.came = m.was;
        writes = datas = b.was, reads = r.was;
        aw = w = ar = tiles = maps = Given();
    }
    top->aclk = 0;
    top->aresetn = at[ARESETN];
    top->s_axi_awvalid = aw.offer(at[AWVALID]);
    top->s_axi_awaddr = number(at + AWADDR, 2);
    top->s_axi_wvalid = w.offer(at[WVALID]);
    top->s_axi_wdata = number(at + WDATA, 4);
    top->s_axi_wstrb = at[WSTRB];
    top->s_axi_arvalid = ar.offer(at[ARVALID]);
    top->s_axi_araddr = number(at + ARADDR, 2);
    top->s_axis_weights_tvalid = tiles.offer(at[TVALID]);
    top->s_axis_weights_tlast = at[TLAST];
    wide(top->s_axis_weights_tdata, at + TDATA);
    top->s_axis_acts_tvalid = maps.offer(at[GVALID]);
    wide(top->s_axis_acts_tdata, at + GDATA);
    top->s_axi_bready = at[BREADY] && !(waits && b.came > b.was);
    top->s_axi_rready = at[RREADY] && !(waits && r.came > r.was);
    top->m_axis_acts_tready = at[MREADY] && !(waits && m.came > m.was);
    top->eval();
    bool go = true;
    if (!reset) {
        const bool took_aw = top->s_axi_awvalid && top->s_axi_awready;
        const bool took_w = top->s_axi_wvalid && top->s_axi_wready;
        const bool took_ar = top->s_axi_arvalid && top->s_axi_arready;
        if (top->s_axi_bvalid && top->s_axi_bready) {
            if (b.came >= writes || b.came >= datas || b.came >= b.beats.size()) return "protocol";
            const uint8_t* then = recording_.data + b.beats[b.came++] * BYTES;
            if (top->s_axi_bresp != then[BRESP]) return "response";
        }
        if (top->s_axi_rvalid && top->s_axi_rready) {
            if (r.came >= reads || r.came >= r.beats.size()) return "protocol";
            const uint8_t* then = recording_.data + r.beats[r.came] * BYTES;
            if (top->s_axi_rresp != then[RRESP]) return "response";
            const uint32_t differs = top->s_axi_rdata ^ static_cast<uint32_t>(number(then + RDATA, 4));
            const uint32_t mask = then[LOOK] & POLL ? POLLED : then[LOOK] & READ ? ~0u : 0;
            const bool irq = then[LOOK] & STATUS && top->irq != then[IRQ];
            if (differs & mask || irq) {
                if (learns_ < 0) return irq ? "interrupt" : "value";
                dprintf(learns_, "{\"read\": %ld}\n", r.beats[r.came]);
            }
            ++r.came;
        }
        if (top->m_axis_acts_tvalid && top->m_axis_acts_tready) {
            if (m.came >= m.beats.size()) return "beat";
            const uint8_t* then = recording_.data + m.beats[m.came] * BYTES;
            const bool differs = top->m_axis_acts_tlast != then[MLAST] || !same(top->m_axis_acts_tdata, then + MDATA);
            if (differs && then[LOOK] & MAPS) {
                if (learns_ < 0) return "beat";
                dprintf(learns_, "{\"beat\": %ld}\n", m.beats[m.came]);
            }
            ++m.came;
        }
        writes += took_aw, datas += took_w, reads += took_ar;
        go &= aw.step(took_aw, at[AWVALID] & at[AWREADY]);
        go &= w.step(took_w, at[WVALID] & at[WREADY]);
        go &= ar.step(took_ar, at[ARVALID] & at[ARREADY]);
        go &= tiles.step(top->s_axis_weights_tvalid && top->s_axis_weights_tready, at[TVALID] & at[TREADY]);
        go &= maps.step(top->s_axis_acts_tvalid && top->s_axis_acts_tready, at[GVALID] & at[GREADY]);
        go &= b.came >= b.was + (at[BVALID] & at[BREADY]);
        go &= r.came >= r.was + (at[RVALID] & at[RREADY]);
        go &= m.came >= m.was + (at[MVALID] & at[MREADY]);
        go &= !at[IRQ] || again_ || (n && at[IRQ - BYTES]) || top->irq;  // as it rises; when it falls is a matter of time
        odd = top->irq && !at[IRQ] ? odd + 1 : 0;
        if (odd > PATIENCE) return "interrupt";
    }
    top->aclk = 1;
    top->eval();
    context_->timeInc(1);
    if (!go) {
        if (++waits > PATIENCE) return "hang";
        return nullptr;
    }
    waits = 0;
    aw.next(at[AWVALID] & at[AWREADY]);
    w.next(at[WVALID] & at[WREADY]);
    ar.next(at[ARVALID] & at[ARREADY]);
    tiles.next(at[TVALID] & at[TREADY]);
    maps.next(at[GVALID] & at[GREADY]);
    b.next(at[BVALID] & at[BREADY]);
    r.next(at[RVALID] & at[RREADY]);
    m.next(at[MVALID] & at[MREADY]);
    ++cycle_;
    if (++again_ < number(at + REPEAT, 4)) return nullptr;
    again_ = 0;
    ++n_;
    return nullptr;
}

void say(int results, const char* text, int size) {
    if (write(results, text, size) != size) _exit(3);  // one write: lines of several processes do not mix
}

void killed(int results, int mutant, const Recording& by, const char* how, const Shared& shared) {
    char text[512];
    say(results, text, snprintf(text, sizeof text,
        "{\"mutant\": %d, \"by\": \"%s\", \"how\": \"%s\", \"cycle\": %ld, \"cpu\": %.3f}\n",
        mutant, by.name.c_str(), how, shared.cycle, shared.cpu));
}

constexpr long NEVER = -1;

// The tick in which each mutant is first another bit than the array, of a run without mutants.
std::vector<long> seen(const Recording& recording, unsigned seed, int most) {
    std::vector<long> first(sizeof eie_seen, NEVER);
    memset(eie_seen, 0, sizeof eie_seen);
    std::vector<uint64_t> before(most / 8 + 1);
    Walk walk(recording, seed, -1);
    for (long tick = 0; !walk.ended(); ++tick) {
        if (walk.tick()) break;  // it is no recording of this array; whoever learns is told so
        for (size_t word = 0; word < before.size(); ++word) {
            uint64_t now;
            memcpy(&now, eie_seen + 8 * word, 8);
            if (now == before[word]) continue;
            before[word] = now;
            for (size_t at = 8 * word; at < 8 * word + 8; ++at)
                if (eie_seen[at] && first[at] == NEVER) first[at] = tick;
        }
    }
    return first;
}

struct Child {
    pid_t pid = 0;
    int mutant = 0;
};

class Children {
   public:
    Children(int jobs, rlim_t limit, int results, Shared* shared)
        : places_(jobs), limit_(limit), results_(results), shared_(shared) {}

    // Whether this is the child; the parent waits until there is a place for it.
    bool begin(int mutant) {
        while (running_ == places_.size()) end();
        const pid_t pid = fork();
        if (pid < 0) _exit(4);
        if (pid == 0) {
            const rlimit most = {limit_, limit_ + 1};
            setrlimit(RLIMIT_CPU, &most);
            const rlimit none = {0, 0};
            setrlimit(RLIMIT_CORE, &none);
            return true;
        }
        for (Child& place : places_)
            if (!place.pid) {
                place = {pid, mutant};
                break;
            }
        ++running_;
        return false;
    }
    void all(const Recording& of) {
        of_ = &of;
        while (running_) end();
    }
    void of(const Recording& recording) { of_ = &recording; }

   private:
    void end() {
        int status;
        rusage used;
        const pid_t pid = wait4(-1, &status, 0, &used);
        for (Child& place : places_) {
            if (!place.pid || place.pid != pid) continue;
            Shared& shared = shared_[place.mutant];
            shared.cpu += used.ru_utime.tv_sec + used.ru_stime.tv_sec + 1e-6 * (used.ru_utime.tv_usec + used.ru_stime.tv_usec);
            if (!WIFEXITED(status) || WEXITSTATUS(status)) {
                const bool late = WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL);
                killed(results_, place.mutant, *of_, late ? "hang" : "assertion", shared);
                shared.killed = true;
            }
            place.pid = 0;
            --running_;
        }
    }
    std::vector<Child> places_;
    size_t running_ = 0;
    const rlim_t limit_;
    const int results_;
    Shared* const shared_;
    const Recording* of_ = nullptr;
};

// What a child does: to the end of the recording, or until something shows.
[[noreturn]] void follow(Walk& walk, int mutant, int results, Shared& shared, const Recording& recording) {
    walk.choose(mutant);
    while (!walk.ended()) {
        shared.cycle = walk.cycle();
        if (const char* how = walk.tick()) {
            shared.killed = true;
            killed(results, mutant, recording, how, shared);
            _exit(0);
        }
    }
    _exit(0);
}

}  // namespace

// Arguments: +eie_replay JOBS SEED SECONDS RECORDING… [+eie_long RECORDING…]; mutants as numbers at standard input. Mutant 0 changes nothing
// and lists what depends on SEED. A process of its own follows each mutant from where it first is another bit than the
// array, so that what one kills takes nothing with it, and what comes before is simulated once for all.
int main(int argc, char** argv) {
    if (argc < 5 || std::string(argv[1]) != "+eie_replay") return cocotb_main(argc, argv);
    const int jobs = atoi(argv[2]);
    const unsigned seed = strtoul(argv[3], nullptr, 10);
    const rlim_t limit = strtoul(argv[4], nullptr, 10);
    std::vector<Recording> recordings;
    bool is_long = false;
    for (int n = 5; n < argc; ++n) {
        if (std::string(argv[n]) == "+eie_long") {
            is_long = true;
            continue;
        }
        const int file = open(argv[n], O_RDONLY);
        const off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
        if (size <= 0) return fprintf(stderr, "cannot read %s\n", argv[n]), 2;
        void* data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
        if (data == MAP_FAILED) return fprintf(stderr, "cannot map %s\n", argv[n]), 2;
        const std::string path = argv[n];
        const size_t begin = path.rfind('/') + 1;
        recordings.push_back({path.substr(begin, path.rfind('.') - begin), static_cast<uint8_t*>(data), size_t(size) / BYTES, is_long});
    }
    std::vector<int> left;
    for (int mutant; scanf("%d", &mutant) == 1;) left.push_back(mutant);
    auto* shared = static_cast<Shared*>(
        mmap(nullptr, sizeof(Shared) * sizeof eie_seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const int results = dup(1);
    const int nothing = open("/dev/null", O_WRONLY);
    dup2(nothing, 1);  // what the array prints
    dup2(nothing, 2);
    Children children(jobs, limit, results, shared);
    std::vector<int> active(sizeof eie_seen);
    for (const Recording& recording : recordings) {
        if (left.empty()) break;
        children.of(recording);
        std::vector<long> first = seen(recording, seed, *std::max_element(left.begin(), left.end()));
        std::vector<std::pair<long, int>> order;
        for (int mutant : left) {
            if (!mutant) {
                if (children.begin(0)) {
                    Walk walk(recording, seed, results);
                    follow(walk, 0, results, shared[0], recording);
                }
            } else if (first[mutant] != NEVER && !(recording.is_long && active[mutant])) {
                ++active[mutant];
                order.emplace_back(first[mutant], mutant);
            }
        }
        std::sort(order.begin(), order.end());
        size_t next = 0;
        Walk walk(recording, seed, -1);
        for (long tick = 0; next < order.size(); ++tick) {
            for (; next < order.size() && order[next].first <= tick + 1; ++next) {
                const int mutant = order[next].second;
                if (children.begin(mutant)) follow(walk, mutant, results, shared[mutant], recording);
            }
            if (walk.ended() || walk.tick()) break;
        }
        children.all(recording);
        std::vector<int> kept;
        for (int mutant : left)
            if (!shared[mutant].killed) kept.push_back(mutant);
        left.swap(kept);
    }
    for (int mutant : left) {
        char text[128];
        say(results, text, snprintf(text, sizeof text, "{\"mutant\": %d, \"by\": null, \"active\": %d, \"cpu\": %.3f}\n",
                                    mutant, active[mutant], shared[mutant].cpu));
    }
    return 0;
}
