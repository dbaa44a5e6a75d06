// interop write PATH WHICH COUNT END | interop read PATH: the C++ side of the matrix; see ffi/tests/interop.rs.
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

int main(int argc, char **argv) try {
    for (std::size_t i = 0; i < sizeof pool; i++)
        pool[i] = static_cast<std::byte>(i * i >> 4);
    if (argc == 6 && !std::strcmp(argv[1], "write"))
        write_all(argv[2], static_cast<std::uint32_t>(std::stoul(argv[3])), std::stoull(argv[4]), !std::strcmp(argv[5], "end"));
    else if (argc == 3 && !std::strcmp(argv[1], "read"))
        read_all(argv[2]);
    else
        return 64;
    return 0;
} catch (const lapwing::error &error) {
    std::cerr << "interop.cpp: " << error.what() << '\n';
    return 1;
}
