// lapwing.hpp: handles that close themselves, results, items, ranges, claims, batches, the overrun report.
#include <lapwing.hpp>

#include <cstdio>
#include <cstring>
#include <thread>
#include <type_traits>
#include <unistd.h>

#define CHECK(condition)                                                                                                \
    do {                                                                                                                \
        if (!(condition)) {                                                                                             \
            std::fprintf(stderr, "%s:%d: %s; last error: %s\n", __FILE__, __LINE__, #condition, lapwing_last_error());  \
            std::abort();                                                                                               \
        }                                                                                                               \
    } while (0)

static_assert(std::is_nothrow_move_constructible_v<lapwing::writer> && !std::is_copy_constructible_v<lapwing::writer>);
static_assert(std::is_nothrow_move_constructible_v<lapwing::reader> && !std::is_copy_constructible_v<lapwing::reader>);
static_assert(std::is_nothrow_move_constructible_v<lapwing::claim> && !std::is_copy_constructible_v<lapwing::claim>);

static std::string path_of(const char *name) {
    const char *directory = std::getenv("LAPWING_TEST_DIR");
    return std::string(directory ? directory : "/dev/shm") + "/lapwing-" + name + "-" + std::to_string(getpid());
}

static void everyday(const char *path) {
    lapwing::writer writer = lapwing::writer::create(path).value();
    lapwing::reader reader = lapwing::reader::open(path).value();
    CHECK(writer.publish("zero").value() == 0);
    const lapwing_slice parts[] = {{"on", 2}, {"e", 1}};
    CHECK(writer.publish_vectored(parts, 2, 11).value() == 1);
    const lapwing_message messages[] = {{"two", 3, 0, 0}, {"three", 5, 0, 0}};
    CHECK(writer.publish_batch(messages, 2).value() == 2);
    {
        auto given_up = writer.claim(10);
        CHECK(given_up.ok() && given_up->bytes().size() == 10);
        CHECK(writer.publish("no").code() == LAPWING_E_STATE);
    }
    {
        auto claim = writer.claim(10, 44).value();
        std::memcpy(claim.bytes().data(), "four", 4);
        auto moved = std::move(claim);
        CHECK(moved.commit(4).value() == 4);
    }
    const char *expected[] = {"zero", "one", "two", "three", "four"};
    std::size_t at = 0;
    auto range = reader.stream(lapwing::nanoseconds(0));
    for (const lapwing::item &item : range) {
        CHECK(item.is_record() && item.record().sequence() == at && item.record().text() == expected[at]);
        at++;
    }
    CHECK(at == 5 && range.why() == LAPWING_EMPTY);

    for (int i = 0; i < 10; i++)
        writer.publish(std::to_string(i)).value();
    lapwing::batch<4> batch;
    int seen = 0;
    while (reader.poll(batch, lapwing::nanoseconds(0)).ok())
        for (auto record : batch)
            CHECK(record.text() == std::to_string(seen++));
    CHECK(seen == 10 && batch.empty());
    writer.publish("copied").value();
    alignas(8) std::byte buffer[64];
    CHECK(reader.poll(batch, {buffer, sizeof buffer}).ok() && batch.size() == 1);
    CHECK(batch[0].bytes().data() == buffer && batch[0].text() == "copied");

    lapwing::reader elsewhere = std::move(reader);
    CHECK(reader.get() == nullptr && reader.next().code() == LAPWING_E_NULL); // NOLINT: that is the point
    CHECK(elsewhere.describe().value().delivered == 15);
    CHECK(elsewhere.position()->next_sequence == 16);
    CHECK(writer.close(5, "enough").ok() && writer.get() == nullptr);
    auto end = elsewhere.stream();
    for (const lapwing::item &item : end)
        CHECK(!"nothing but the end is left" && item);
    CHECK(end.why() == LAPWING_CLOSED && elsewhere.closed()->code == 5);
    CHECK(std::string_view(elsewhere.closed()->reason) == "enough");
    elsewhere.close().value();
    lapwing::remove(path).value();
}

static void overruns(const char *path) {
    lapwing::writer_options options;
    options.capacity = 4096;
    auto writer = lapwing::writer::create(path, options).value();
    std::vector<lapwing::reader> readers;
    for (int i = 0; i < 20; i++)
        readers.push_back(lapwing::reader::open(path).value());
    CHECK(writer.readers().value().size() == 20);
    while (writer.try_publish("0123456789").ok())
        continue;
    CHECK(writer.try_publish("0123456789").code() == LAPWING_WOULD_OVERRUN);
    lapwing::overrun report = writer.overrun().value();
    CHECK(report.readers.size() == 20 && report.what.sequence == writer.describe()->next_sequence);
    for (const auto &reader : report.readers)
        CHECK(writer.evict(reader.id).ok());
    CHECK(writer.evict(report.readers[0].id) == LAPWING_ALREADY);
    writer.publish("room").value();
    lapwing::item item = readers[0].next();
    while (item.is_record())
        item = readers[0].next();
    CHECK(item.is_evicted());
    lapwing::gap gap = readers[0].rejoin(LAPWING_START_LATEST).value();
    CHECK(!gap.empty() && gap.end == report.what.sequence + 1);
    int warnings = 0;
    while (auto event = writer.take_event())
        warnings += event->kind == LAPWING_EVENT_WARNING;
    CHECK(warnings > 0);
    readers.clear();
    CHECK(writer.readers().value().empty());
    writer.close().value();
    lapwing::remove(path).value();
}

static void failures(const char *path) {
    auto none = lapwing::writer::open("/nowhere/at/all");
    CHECK(!none && none.code() == LAPWING_E_NOT_FOUND && none.status().failed());
    try {
        lapwing::reader::open("/nowhere/at/all").value();
        CHECK(!"it throws");
    } catch (const lapwing::error &error) {
        CHECK(error.code() == LAPWING_E_NOT_FOUND && std::strstr(error.what(), "/nowhere/at/all"));
    }
    /* A writer that goes without closing leaves the stream open. */
    { lapwing::writer::create(path).value().publish("left").value(); }
    lapwing::reader_options options;
    options.start = LAPWING_START_OLDEST;
    auto reader = lapwing::reader::open(path, options).value();
    CHECK(reader.next().record().text() == "left");
    CHECK(reader.next().code() == LAPWING_ABSENT);
    CHECK(lapwing::inspect(path)->writer_state == LAPWING_WRITER_ABSENT);
    auto standby = lapwing::writer::standby(path).value();
    std::thread thread([&] { standby.publish("from a thread").value(); });
    CHECK(reader.next().record().text() == "from a thread");
    thread.join();
    CHECK(reader.fd().value() >= 0);
    standby.close().value();
    lapwing::remove(path).value();
}

/* A file that shrinks is a status. */
static void shrunk(const std::string &path) {
    lapwing::install_guard().value();
    lapwing::writer writer = lapwing::writer::create(path.c_str()).value();
    lapwing::reader reader = lapwing::reader::open(path.c_str()).value();
    CHECK(truncate(path.c_str(), 0) == 0);
    auto first = reader.next(lapwing::nanoseconds(0)).code();
    CHECK(first == LAPWING_EMPTY || first == LAPWING_E_FILE_TRUNCATED);
    CHECK(reader.next(lapwing::nanoseconds(0)).code() == LAPWING_E_FILE_TRUNCATED);
    CHECK(reader.close().ok() && writer.abandon().ok());
    for (const char *suffix : {"", ".readers", ".lock"})
        CHECK(unlink((path + suffix).c_str()) == 0);
}

int main() {
    const std::string path = path_of("wrapper");
    everyday(path.c_str());
    overruns(path.c_str());
    failures(path.c_str());
    shrunk(path);
    std::puts("wrapper: fine");
}
