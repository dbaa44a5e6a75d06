/*
 * lapwing.hpp - lapwing.h for C++17 and later, header only
 *
 * What a bus is, and what each call does and returns, stands in lapwing.h. This adds: handles that close themselves (move-only), results that
 * are looked at before they are used, ranges, and exceptions for those who want them.
 *
 *     lapwing::writer writer = lapwing::writer::create("/dev/shm/hello").value(); // value() throws, everything else does not
 *     lapwing::reader reader = lapwing::reader::open("/dev/shm/hello").value();
 *     writer.publish("hello").value();
 *     writer.close().value();
 *     for (const lapwing::item &item : reader.stream()) {                         // until the stream ends
 *         if (item.is_record())
 *             std::cout << item.record().text() << '\n';
 *         else if (item.is_gap())
 *             std::cerr << item.gap().count() << " records missed\n";
 *     }
 *
 * Each call that reads or writes is noexcept and returns a status, a result or an item. Only result::value(), status::value() and the calls that
 * return a std::vector can throw. Define LAPWING_NO_EXCEPTIONS to do without: value() then ends the program on an error.
 *
 * A destructor commits nothing and ends no stream: a writer that was not closed leaves the bus as a crash would (readers are told that it
 * is absent), and a reader that was not asked for more has not handled its last record.
 */

#ifndef LAPWING_HPP
#define LAPWING_HPP

#include "lapwing.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__has_include)
#if __has_include(<span>) && __cplusplus >= 202002L
#include <span>
#define LAPWING_HAS_SPAN 1
#endif
#endif

#ifndef LAPWING_NO_EXCEPTIONS
#include <stdexcept>
#endif

namespace lapwing {

using std::chrono::nanoseconds;

/* A wait without end. */
constexpr nanoseconds forever{-1};

/* Bytes that belong to somebody else. */
#ifdef LAPWING_HAS_SPAN
using bytes = std::span<const std::byte>;
using mutable_bytes = std::span<std::byte>;
#else
template <class Byte> class basic_bytes {
  public:
    constexpr basic_bytes() noexcept = default;
    constexpr basic_bytes(Byte *data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr Byte *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr Byte *begin() const noexcept { return data_; }
    constexpr Byte *end() const noexcept { return data_ + size_; }
    constexpr Byte &operator[](std::size_t at) const noexcept { return data_[at]; }

  private:
    Byte *data_ = nullptr;
    std::size_t size_ = 0;
};
using bytes = basic_bytes<const std::byte>;
using mutable_bytes = basic_bytes<std::byte>;
#endif

#ifndef LAPWING_NO_EXCEPTIONS
/* An error, or an outcome that the caller did not expect, as an exception. */
class error : public std::runtime_error {
  public:
    explicit error(int code)
        : std::runtime_error(code < 0 ? std::string(lapwing_status_name(code)) + ": " + lapwing_last_error()
                                      : std::string(lapwing_status_name(code))),
          code_(code) {}
    /* LAPWING_... */
    int code() const noexcept { return code_; }

  private:
    int code_;
};
#endif

namespace detail {
[[noreturn]] inline void raise(int code) {
#ifndef LAPWING_NO_EXCEPTIONS
    throw error(code);
#else
    (void)code;
    std::abort();
#endif
}
} // namespace detail

/* What a call returned. */
class [[nodiscard]] status {
  public:
    constexpr status(int code) noexcept : code_(code) {} // NOLINT: a code is a status
    constexpr int code() const noexcept { return code_; }
    constexpr bool ok() const noexcept { return code_ == LAPWING_OK; }
    constexpr bool failed() const noexcept { return code_ < 0; }
    const char *name() const noexcept { return lapwing_status_name(code_); }
    /* Throws unless it is LAPWING_OK. */
    void value() const {
        if (!ok())
            detail::raise(code_);
    }
    constexpr bool operator==(int code) const noexcept { return code_ == code; }
    constexpr bool operator!=(int code) const noexcept { return code_ != code; }

  private:
    int code_;
};

/* A value, or the status that there is in its place. */
template <class T> class [[nodiscard]] result {
  public:
    result(lapwing::status status) noexcept : status_(status) {} // NOLINT: a status other than LAPWING_OK is a result
    result(T value) noexcept : status_(LAPWING_OK), value_(std::move(value)) {} // NOLINT: a value is a result
    /* The value if the code is LAPWING_OK. */
    result(int code, T value) noexcept : status_(code) {
        if (code == LAPWING_OK)
            value_.emplace(std::move(value));
    }
    bool ok() const noexcept { return status_.ok(); }
    explicit operator bool() const noexcept { return ok(); }
    lapwing::status status() const noexcept { return status_; }
    int code() const noexcept { return status_.code(); }
    /* The value; without one this is undefined, as for std::optional. */
    T &operator*() & noexcept { return *value_; }
    T &&operator*() && noexcept { return *std::move(value_); }
    T *operator->() noexcept { return &*value_; }
    /* The value, or throws. */
    T &value() & {
        status_.value();
        return *value_;
    }
    T value() && {
        status_.value();
        return *std::move(value_);
    }

  private:
    lapwing::status status_;
    std::optional<T> value_;
};

/* Sequences missed. */
struct gap : lapwing_gap {
    gap() noexcept : lapwing_gap{0, 0} {}
    gap(const lapwing_gap &other) noexcept : lapwing_gap(other) {} // NOLINT: the same thing
    std::uint64_t count() const noexcept { return end - first; }
    bool empty() const noexcept { return end == first; }
};

/* A record that was read; borrows its bytes, see lapwing_reader_next and lapwing_reader_poll. */
class record {
  public:
    record() noexcept : raw_{} {}
    explicit record(const lapwing_record &raw) noexcept : raw_(raw) {}
    std::uint64_t sequence() const noexcept { return raw_.sequence; }
    std::uint32_t tag() const noexcept { return raw_.tag; }
    /* Nanoseconds since 1970; 0 on a bus without time stamps. */
    std::uint64_t stamp_ns() const noexcept { return raw_.stamp_ns; }
    std::size_t size() const noexcept { return raw_.length; }
    lapwing::bytes bytes() const noexcept { return {static_cast<const std::byte *>(raw_.data), raw_.length}; }
    std::string_view text() const noexcept {
        return raw_.length == 0 ? std::string_view() : std::string_view(static_cast<const char *>(raw_.data), raw_.length);
    }

  private:
    lapwing_record raw_;
};

/* What comes next in a stream: a record, a gap, or word of how things stand. */
class [[nodiscard]] item {
  public:
    explicit item(int code) noexcept : status_(code) {}
    item(const lapwing_record &record) noexcept : status_(LAPWING_OK), record_(record) {} // NOLINT
    item(int code, const lapwing_gap &gap) noexcept : status_(code), gap_(gap) {}
    lapwing::status status() const noexcept { return status_; }
    int code() const noexcept { return status_.code(); }
    bool is_record() const noexcept { return status_.ok(); }
    bool is_empty() const noexcept { return status_ == LAPWING_EMPTY; }
    bool is_gap() const noexcept { return status_ == LAPWING_GAP; }
    bool is_evicted() const noexcept { return status_ == LAPWING_EVICTED; }
    bool is_closed() const noexcept { return status_ == LAPWING_CLOSED; }
    explicit operator bool() const noexcept { return is_record(); }
    /* The record; empty if it is not one. */
    const lapwing::record &record() const noexcept { return record_; }
    /* The sequences missed (so far, if evicted); empty if nothing was. */
    const lapwing::gap &gap() const noexcept { return gap_; }

  private:
    lapwing::status status_;
    lapwing::record record_;
    lapwing::gap gap_;
};

/* Options with their size and every default set. */
struct writer_options : lapwing_writer_options {
    writer_options() noexcept : lapwing_writer_options{} { size = sizeof(lapwing_writer_options); }
};
struct reader_options : lapwing_reader_options {
    reader_options() noexcept : lapwing_reader_options{} { size = sizeof(lapwing_reader_options); }
};

/* A report of a refused publish: the record, and every reader in its way. */
struct overrun {
    lapwing_overrun what{};
    std::vector<lapwing_reader_info> readers;
};

namespace detail {

/* Calls with arrays of infos of growing size until all fit. */
template <class Call> result<std::vector<lapwing_reader_info>> list(Call call) {
    std::vector<lapwing_reader_info> readers(8);
    for (;;) {
        readers[0].size = sizeof(lapwing_reader_info);
        std::size_t count = 0;
        int code = call(readers.data(), readers.size(), &count);
        if (code != LAPWING_TRUNCATED) {
            if (code != LAPWING_OK)
                return status(code);
            readers.resize(count);
            return readers;
        }
        readers.resize(count + 8);
    }
}

/* A handle that closes itself. */
template <class T, int (*Close)(T **)> class handle {
  public:
    handle() noexcept = default;
    explicit handle(T *raw) noexcept : raw_(raw) {}
    handle(handle &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
    handle &operator=(handle &&other) noexcept {
        if (this != &other) {
            Close(&raw_);
            raw_ = std::exchange(other.raw_, nullptr);
        }
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() { Close(&raw_); }
    T *get() const noexcept { return raw_; }
    T **address() noexcept { return &raw_; }

  private:
    T *raw_ = nullptr;
};

} // namespace detail

class writer;

/* A record being written in place; gone if it is not committed. The writer must stay where it is meanwhile. */
class [[nodiscard]] claim {
  public:
    claim(claim &&other) noexcept : writer_(std::exchange(other.writer_, nullptr)), bytes_(other.bytes_) {}
    claim &operator=(claim &&) = delete;
    claim(const claim &) = delete;
    claim &operator=(const claim &) = delete;
    ~claim() {
        if (writer_)
            lapwing_writer_abort(writer_);
    }
    mutable_bytes bytes() const noexcept { return bytes_; }
    /* Publishes the first `length` bytes; returns the sequence. */
    result<std::uint64_t> commit(std::size_t length) noexcept {
        std::uint64_t sequence = 0;
        int code = lapwing_writer_commit(writer_, length, &sequence);
        if (code != LAPWING_OK)
            return status(code);
        writer_ = nullptr;
        return sequence;
    }
    result<std::uint64_t> commit() noexcept { return commit(bytes_.size()); }

  private:
    friend class writer;
    claim(lapwing_writer *writer, void *data, std::size_t length) noexcept
        : writer_(writer), bytes_(static_cast<std::byte *>(data), length) {}
    lapwing_writer *writer_;
    mutable_bytes bytes_;
};

class writer {
  public:
    static result<writer> create(const char *path, const lapwing_writer_options &options = writer_options()) noexcept {
        return opened([&](lapwing_writer **out) { return lapwing_writer_create(path, &options, out); });
    }
    static result<writer> open(const char *path) noexcept {
        return opened([&](lapwing_writer **out) { return lapwing_writer_open(path, out); });
    }
    static result<writer> standby(const char *path) noexcept {
        return opened([&](lapwing_writer **out) { return lapwing_writer_standby(path, out); });
    }

    result<std::uint64_t> publish(const void *data, std::size_t length, std::uint32_t tag = 0) noexcept {
        std::uint64_t sequence = 0;
        int code = lapwing_writer_publish(get(), tag, data, length, &sequence);
        return {code, sequence};
    }
    result<std::uint64_t> publish(bytes data, std::uint32_t tag = 0) noexcept { return publish(data.data(), data.size(), tag); }
    result<std::uint64_t> publish(std::string_view text, std::uint32_t tag = 0) noexcept {
        return publish(text.data(), text.size(), tag);
    }
    result<std::uint64_t> try_publish(const void *data, std::size_t length, std::uint32_t tag = 0) noexcept {
        std::uint64_t sequence = 0;
        int code = lapwing_writer_try_publish(get(), tag, data, length, &sequence);
        return {code, sequence};
    }
    result<std::uint64_t> try_publish(std::string_view text, std::uint32_t tag = 0) noexcept {
        return try_publish(text.data(), text.size(), tag);
    }
    result<std::uint64_t> publish_vectored(const lapwing_slice *parts, std::size_t count, std::uint32_t tag = 0) noexcept {
        std::uint64_t sequence = 0;
        int code = lapwing_writer_publish_vectored(get(), tag, parts, count, &sequence);
        return {code, sequence};
    }
    result<std::uint64_t> publish_batch(const lapwing_message *messages, std::size_t count) noexcept {
        std::uint64_t first = 0;
        int code = lapwing_writer_publish_batch(get(), messages, count, &first);
        return {code, first};
    }
    result<lapwing::claim> claim(std::size_t length, std::uint32_t tag = 0) noexcept {
        void *data = nullptr;
        int code = lapwing_writer_claim(get(), tag, length, &data);
        if (code != LAPWING_OK)
            return status(code);
        return lapwing::claim(get(), data, length);
    }

    status refuse() noexcept { return lapwing_writer_set_policy(get(), LAPWING_POLICY_REFUSE, 0); }
    status wait(nanoseconds timeout = forever) noexcept {
        return lapwing_writer_set_policy(get(), LAPWING_POLICY_WAIT, timeout.count());
    }
    status evict() noexcept { return lapwing_writer_set_policy(get(), LAPWING_POLICY_EVICT, 0); }

    /* Who was in the way of the record that was refused last. Allocates. */
    result<lapwing::overrun> overrun() {
        lapwing::overrun report;
        report.what.size = sizeof report.what;
        auto readers = detail::list([&](lapwing_reader_info *infos, std::size_t capacity, std::size_t *count) {
            return lapwing_writer_get_overrun(get(), &report.what, infos, capacity, count);
        });
        if (!readers)
            return readers.status();
        report.readers = *std::move(readers);
        return report;
    }
    /* Every registered reader. Allocates. */
    result<std::vector<lapwing_reader_info>> readers() {
        return detail::list([&](lapwing_reader_info *infos, std::size_t capacity, std::size_t *count) {
            return lapwing_writer_list_readers(get(), infos, capacity, count);
        });
    }
    /* LAPWING_EMPTY if nothing was noticed; `reader`, if wanted, gets its size set. */
    result<lapwing_event> take_event(lapwing_reader_info *reader = nullptr) noexcept {
        lapwing_event event{};
        event.size = sizeof event;
        if (reader)
            reader->size = sizeof *reader;
        int code = lapwing_writer_take_event(get(), &event, reader);
        return {code, event};
    }
    status evict(std::uint64_t reader) noexcept { return lapwing_writer_evict(get(), reader); }
    status reap() noexcept { return lapwing_writer_reap(get(), nullptr, 0, nullptr); }
    status wait_for_readers(nanoseconds timeout = forever) noexcept {
        return lapwing_writer_wait_for_readers(get(), timeout.count());
    }
    result<lapwing_writer_info> describe() noexcept {
        lapwing_writer_info info{};
        info.size = sizeof info;
        int code = lapwing_writer_describe(get(), &info);
        return {code, info};
    }

    /* Ends the stream. */
    status close(std::uint32_t code = 0, const char *reason = nullptr) noexcept {
        return lapwing_writer_close(handle_.address(), code, reason);
    }
    /* Lets go without ending the stream, as the destructor does. */
    status abandon() noexcept { return lapwing_writer_abandon(handle_.address()); }
    lapwing_writer *get() const noexcept { return handle_.get(); }

  private:
    explicit writer(lapwing_writer *raw) noexcept : handle_(raw) {}
    template <class Open> static result<writer> opened(Open open) noexcept {
        lapwing_writer *raw = nullptr;
        int code = open(&raw);
        if (code != LAPWING_OK)
            return status(code);
        return writer(raw);
    }
    detail::handle<lapwing_writer, lapwing_writer_abandon> handle_;
};

/* Room for the records of a poll. They are what the loop over it gives; the next poll ends them. */
template <std::size_t N> class batch {
  public:
    class iterator {
      public:
        explicit iterator(const lapwing_record *at) noexcept : at_(at) {}
        lapwing::record operator*() const noexcept { return lapwing::record(*at_); }
        iterator &operator++() noexcept {
            ++at_;
            return *this;
        }
        bool operator!=(const iterator &other) const noexcept { return at_ != other.at_; }

      private:
        const lapwing_record *at_;
    };
    iterator begin() const noexcept { return iterator(records_.data()); }
    iterator end() const noexcept { return iterator(records_.data() + size_); }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    lapwing::record operator[](std::size_t at) const noexcept { return lapwing::record(records_[at]); }

  private:
    friend class reader;
    std::array<lapwing_record, N> records_{};
    std::size_t size_ = 0;
};

class reader {
  public:
    static result<reader> open(const char *path, const lapwing_reader_options &options = reader_options()) noexcept {
        lapwing_reader *raw = nullptr;
        int code = lapwing_reader_open(path, &options, &raw);
        if (code != LAPWING_OK)
            return status(code);
        return reader(raw);
    }

    /* What comes next; a record is valid until the next call. */
    item next(nanoseconds timeout = forever) noexcept {
        lapwing_record raw;
        int code = lapwing_reader_next(get(), timeout.count(), &raw);
        if (code == LAPWING_OK)
            return raw;
        lapwing_gap missed{0, 0};
        if (code == LAPWING_GAP || code == LAPWING_EVICTED)
            lapwing_reader_get_gap(get(), &missed);
        return item(code, missed);
    }
    /* Fills the batch; LAPWING_OK means that there is something in it. */
    template <std::size_t N> status poll(batch<N> &into, nanoseconds timeout = forever) noexcept {
        return lapwing_reader_poll(get(), timeout.count(), into.records_.data(), N, nullptr, 0, &into.size_);
    }
    /* The same, with payloads copied to `buffer`, where they stay. */
    template <std::size_t N> status poll(batch<N> &into, mutable_bytes buffer, nanoseconds timeout = forever) noexcept {
        return lapwing_reader_poll(get(), timeout.count(), into.records_.data(), N, buffer.data(), buffer.size(), &into.size_);
    }

    /* A stream as a range of items: one per record, gap, eviction and absence of the writer. It ends with the end of the stream, when the bus was
     * replaced, when the time is out, or with an error; why() then says which. An evicted reader must rejoin inside the loop. */
    class range {
      public:
        struct sentinel {};
        class iterator {
          public:
            using iterator_category = std::input_iterator_tag;
            using value_type = item;
            using difference_type = std::ptrdiff_t;
            using pointer = const item *;
            using reference = const item &;
            explicit iterator(range *of) noexcept : of_(of) {}
            const item &operator*() const noexcept { return of_->item_; }
            const item *operator->() const noexcept { return &of_->item_; }
            iterator &operator++() noexcept {
                of_->advance();
                return *this;
            }
            bool operator!=(sentinel) const noexcept { return !of_->over_; }
            bool operator==(sentinel) const noexcept { return of_->over_; }

          private:
            range *of_;
        };
        iterator begin() noexcept {
            advance();
            return iterator(this);
        }
        sentinel end() const noexcept { return {}; }
        /* Why it ended. */
        status why() const noexcept { return item_.status(); }

      private:
        friend class reader;
        range(reader *of, nanoseconds timeout) noexcept : reader_(of), timeout_(timeout), item_(LAPWING_EMPTY) {}
        void advance() noexcept {
            item_ = reader_->next(timeout_);
            int code = item_.code();
            over_ = code < 0 || code == LAPWING_EMPTY || code == LAPWING_CLOSED || code == LAPWING_REPLACED
                    || code == LAPWING_ORPHANED;
        }
        reader *reader_;
        nanoseconds timeout_;
        item item_;
        bool over_ = false;
    };
    range stream(nanoseconds timeout = forever) noexcept { return range(this, timeout); }

    status commit() noexcept { return lapwing_reader_commit(get()); }
    result<lapwing::gap> rejoin(std::uint32_t start = LAPWING_START_RESUME, std::uint64_t at = 0) noexcept {
        lapwing_gap skipped{0, 0};
        int code = lapwing_reader_rejoin(get(), start, at, &skipped);
        if (code != LAPWING_OK)
            return status(code);
        return lapwing::gap(skipped);
    }
    result<lapwing_closed> closed() noexcept {
        lapwing_closed closed{};
        closed.size = sizeof closed;
        int code = lapwing_reader_get_closed(get(), &closed);
        return {code, closed};
    }
    result<lapwing_reader_info> describe() noexcept {
        lapwing_reader_info info{};
        info.size = sizeof info;
        int code = lapwing_reader_describe(get(), &info);
        return {code, info};
    }
    result<lapwing_position> position() noexcept {
        lapwing_position position{};
        position.size = sizeof position;
        int code = lapwing_reader_get_position(get(), &position);
        return {code, position};
    }
    /* A descriptor for epoll and its kin; belongs to the reader. */
    result<int> fd() noexcept {
        int fd = -1;
        int code = lapwing_reader_get_fd(get(), &fd);
        return {code, fd};
    }
    status close() noexcept { return lapwing_reader_close(handle_.address()); }
    lapwing_reader *get() const noexcept { return handle_.get(); }

  private:
    explicit reader(lapwing_reader *raw) noexcept : handle_(raw) {}
    detail::handle<lapwing_reader, lapwing_reader_close> handle_;
};

/* Looks at a bus without disturbing it. */
inline result<lapwing_snapshot> inspect(const char *path) noexcept {
    lapwing_snapshot snapshot{};
    snapshot.size = sizeof snapshot;
    int code = lapwing_bus_inspect(path, &snapshot, nullptr, 0, nullptr);
    return {code, snapshot};
}

/* Removes a bus that has no living writer. */
inline status remove(const char *path) noexcept {
    return lapwing_bus_remove(path);
}

/* Makes a status of a file that shrinks while it is mapped, in place of the process's death by SIGBUS; see lapwing_guard_install. */
inline status install_guard() noexcept {
    return lapwing_guard_install();
}

} // namespace lapwing

#endif
