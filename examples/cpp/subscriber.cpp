// subscriber PATH: prints each record until the end of the stream, one by one or (with --poll) many at a time.
#include <iostream>
#include <lapwing.hpp>

static int print_each(lapwing::reader &reader) {
    auto stream = reader.stream();
    for (const lapwing::item &item : stream) {
        if (item.is_record())
            std::cout << item.record().sequence() << ' ' << item.record().text() << '\n';
        else if (item.is_gap())
            std::cerr << "missed " << item.gap().count() << " records\n";
        else if (item.is_evicted())
            std::cerr << "evicted, missed " << reader.rejoin().value().count() << " records\n";
    }
    std::cerr << stream.why().name() << '\n';
    return stream.why() == LAPWING_CLOSED ? 0 : 1;
}

static int print_many(lapwing::reader &reader) {
    lapwing::batch<64> batch;
    lapwing::status status = LAPWING_OK;
    while (status == LAPWING_OK || status == LAPWING_GAP || status == LAPWING_ABSENT) {
        status = reader.poll(batch);
        for (auto record : batch)
            std::cout << record.sequence() << ' ' << record.text() << '\n';
    }
    std::cerr << status.name() << '\n';
    return status == LAPWING_CLOSED ? 0 : 1;
}

int main(int argc, char **argv) try {
    const bool many = argc == 3 && std::string_view(argv[2]) == "--poll";
    if (argc != 2 && !many) {
        std::cerr << "usage: " << argv[0] << " PATH [--poll]\n";
        return 2;
    }
    lapwing::reader_options options;
    options.start = LAPWING_START_OLDEST;
    auto reader = lapwing::reader::open(argv[1], options).value();
    std::cerr << "attached\n";
    return many ? print_many(reader) : print_each(reader);
} catch (const lapwing::error &error) {
    std::cerr << "subscriber: " << error.what() << '\n';
    return 1;
}
