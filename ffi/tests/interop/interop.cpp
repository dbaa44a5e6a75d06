// interop write PATH WHICH COUNT END | read PATH | tell PATH CLASS NAME | hold PATH: the C++ side of the matrix and the stories; see
// ffi/tests/interop.rs.
#include <cstring>
#include <iostream>
#include <lapwing.hpp>
#include <string>

static std::byte pool[8192];

static std::uint64_t fold(std::uint64_t sum, lapwing::bytes data) {
    std::uint32_t a = 1, b = 0;
    for (std::byte byte : data) {
        a = (a + static_cast<std::uint32_t>(byte)) % 65521;
        b = (b + a) % 65521;
    }
    return sum * 33 + (b << 16 | a) + data.size();
}

static void write_all(const char *path, std::uint32_t which, std::uint64_t count, bool end) {
    auto writer = lapwing::writer::standby(path).value();
    writer.wait().value();
    std::uint64_t state = which, sum = 0;
    for (std::uint64_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const std::uint64_t random = state >> 33;
        const lapwing::bytes data{pool + random % 4096, static_cast<std::size_t>((random >> 12) % 300)};
        sum = fold(sum, data);
        if (i % 2 == 0) {
            writer.publish(data, which).value();
        } else {
            auto claim = writer.claim(data.size() + 100, which).value();
            std::memcpy(claim.bytes().data(), data.data(), data.size());
            claim.commit(data.size()).value();
        }
    }
    std::cout << which << ' ' << count << ' ' << sum << '\n';
    if (end)
        writer.close().value();
}

static void read_all(const char *path) {
    auto reader = lapwing::reader::open(path).value();
    std::cout << "attached" << std::endl;
    std::uint64_t sums[16] = {}, counts[16] = {}, next = 0;
    auto stream = reader.stream();
    for (const lapwing::item &item : stream) {
        if (item.code() == LAPWING_ABSENT)
            continue;
        if (!item.is_record() || item.record().sequence() != next++)
            std::exit(3);
        const std::uint32_t tag = item.record().tag() % 16;
        sums[tag] = fold(sums[tag], item.record().bytes());
        counts[tag]++;
    }
    if (stream.why() != LAPWING_CLOSED)
        std::exit(2);
    for (int tag = 0; tag < 16; tag++)
        if (counts[tag])
            std::cout << tag << ' ' << counts[tag] << ' ' << sums[tag] << '\n';
}

// A reader that does what each line of its input says, and tells what came of it.
static void tell(const char *path, const std::string &reader_class, const char *name) {
    lapwing::reader_options options;
    options.reader_class = reader_class == "lossy" ? LAPWING_CLASS_LOSSY : LAPWING_CLASS_GATING;
    if (*name) {
        options.name = name;
        options.start = LAPWING_START_RESUME;
        options.flags = LAPWING_HOLD_WHILE_AWAY;
    }
    auto reader = lapwing::reader::open(path, options).value();
    std::cout << "attached" << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        if (line == "rejoin") {
            const auto gap = reader.rejoin(LAPWING_START_OLDEST).value();
            std::cout << "rejoined " << gap.first << ' ' << gap.end << std::endl;
            continue;
        }
        const lapwing::item item = reader.next(std::chrono::seconds(30));
        if (item.is_record())
            std::cout << "record " << item.record().sequence() << std::endl;
        else if (item.is_gap() || item.is_evicted())
            std::cout << (item.is_gap() ? "gap " : "evicted ") << item.gap().first << ' ' << item.gap().end << std::endl;
        else
            std::cout << item.status().name() << std::endl;
    }
}

// A writer that takes over, and publishes each line of its input.
static void hold(const char *path) {
    auto writer = lapwing::writer::standby(path).value();
    std::cout << "writer " << writer.describe()->resumed_at << std::endl;
    for (std::string line; std::getline(std::cin, line);)
        std::cout << "published " << writer.publish(line).value() << std::endl;
}

int main(int argc, char **argv) try {
    for (std::size_t i = 0; i < sizeof pool; i++)
        pool[i] = static_cast<std::byte>(i * i >> 4);
    if (argc == 6 && !std::strcmp(argv[1], "write"))
        write_all(argv[2], static_cast<std::uint32_t>(std::stoul(argv[3])), std::stoull(argv[4]), !std::strcmp(argv[5], "end"));
    else if (argc == 3 && !std::strcmp(argv[1], "read"))
        read_all(argv[2]);
    else if (argc == 5 && !std::strcmp(argv[1], "tell"))
        tell(argv[2], argv[3], argv[4]);
    else if (argc == 3 && !std::strcmp(argv[1], "hold"))
        hold(argv[2]);
    else
        return 64;
    return 0;
} catch (const lapwing::error &error) {
    std::cerr << "interop.cpp: " << error.what() << '\n';
    return 1;
}
