// publisher PATH: publishes each line of its input as a record, written in place, and ends the stream with it.
#include <cstring>
#include <iostream>
#include <lapwing.hpp>
#include <string>

int main(int argc, char **argv) try {
    if (argc != 2) {
        std::cerr << "usage: " << argv[0] << " PATH <LINES\n";
        return 2;
    }
    lapwing::writer_options options;
    options.existing = LAPWING_EXISTING_OPEN;
    auto writer = lapwing::writer::create(argv[1], options).value();
    writer.wait(std::chrono::hours(1)).value(); // for slow readers, as long as they live
    for (std::string line; std::getline(std::cin, line);) {
        auto claim = writer.claim(line.size()).value();
        if (!line.empty())
            std::memcpy(claim.bytes().data(), line.data(), line.size());
        claim.commit().value();
    }
    writer.close(0, "end of input").value();
    return 0;
} catch (const lapwing::error &error) {
    std::cerr << "publisher: " << error.what() << '\n';
    return 1;
}
