"""The Python package against the library: python -m unittest discover -s python/tests, with LAPWING_LIBRARY and PYTHONPATH set."""

import ctypes
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import lapwing
from lapwing import _abi

HEADER = (Path(__file__).parents[2] / "include/lapwing.h").read_text()
DIRECTORY = os.environ.get("LAPWING_TEST_DIR", "/dev/shm")


class Case(unittest.TestCase):
    def setUp(self):
        self.path = f"{DIRECTORY}/lapwing-python-{os.getpid()}-{self.id().rsplit('.', 1)[-1]}"
        self.clean()
        self.addCleanup(self.clean)

    def clean(self):
        try:
            lapwing.remove(self.path)
        except lapwing.Error as error:
            if error.status != lapwing.Status.E_NOT_FOUND:
                raise


class Abi(unittest.TestCase):
    """The declarations say what the header says."""

    code = re.sub(r"/\*.*?\*/", "", HEADER, flags=re.S)

    def test_statuses(self):
        header = {name: int(value) for name, value in re.findall(r"LAPWING_(\w+) = (-?\d+)", self.code)}
        ours = {name: value for name, value in vars(_abi.Status).items() if not name.startswith("_")}
        self.assertEqual({name: header[name] for name in ours}, ours)
        self.assertLessEqual({name for name in header if name.startswith("E_")}, set(ours))

    def test_structs(self):
        kinds = {"uint32_t": "c_uint", "uint64_t": "c_ulong", "size_t": "c_ulong", "lapwing_gap": "Gap", "lapwing_stats": "Stats"}
        for name, body in re.findall(r"typedef struct lapwing_(\w+) \{(.*?)\}", self.code, flags=re.S):
            header = []
            for kind, star, field, length in re.findall(r"(?:const )?(\w+) (\*?)(\w+)(?:\[(\d+)\])?;", body):
                kind = {"void": "c_void_p", "char": "c_char_p"}[kind] if star else kinds.get(kind, f"c_char_Array_{length}")
                header.append((field, kind))
            ours = getattr(_abi, "".join(part.title() for part in name.split("_")))
            self.assertEqual([(field, kind.__name__) for field, kind in ours._fields_], header, name)

    def test_prototypes(self):
        kinds = {"int": "c_int", "uint32_t": "c_uint", "uint64_t": "c_ulong", "int64_t": "c_long", "size_t": "c_ulong"}

        def kind_of(text):
            kind, stars = re.fullmatch(r"(?:const )?(\w+) (\**)\w+", text.strip()).groups()
            if kind in ("lapwing_writer", "lapwing_reader"):
                return "c_void_p" if stars == "*" else "LP_c_void_p"
            if kind in ("void", "char") and stars == "*":
                return "c_void_p" if kind == "void" else "c_char_p"
            plain = kinds.get(kind) or {"void": "c_void_p"}.get(kind) or "".join(
                part.title() for part in kind.split("_")[1:])
            return ("LP_" if stars else "") + plain

        header = {}
        for name, parameters in re.findall(r"\b(lapwing_\w+)\(([^)]*)\);", self.code):
            header[name] = [] if parameters == "void" else [kind_of(each) for each in parameters.split(",")]
        ours = {name: [kind.__name__ for kind in kinds_] for name, kinds_ in _abi.PROTOTYPES.items()}
        header["lapwing_reader_poll"][2] = "c_void_p"  # an array that is read with struct
        self.assertEqual(ours, header)

    def test_version(self):
        self.assertIn(f'LAPWING_VERSION "{lapwing.__version__}"', HEADER)


class Everyday(Case):
    def test_publish_and_read(self):
        with lapwing.Writer.create(self.path) as writer, lapwing.Reader(self.path) as reader:
            self.assertEqual(writer.publish(b"zero", tag=3), 0)
            self.assertEqual(writer.publish(bytearray(b"one")), 1)
            self.assertEqual(writer.publish(memoryview(b"xtwox")[1:4]), 2)
            self.assertEqual(writer.publish_vectored([b"th", b"", bytearray(b"ree")], tag=4), 3)
            self.assertEqual(writer.publish_batch([b"four", (b"five", 5), b""]), 4)
            with writer.claim(10) as claim:
                claim.view[:5] = b"seven"
                self.assertEqual(claim.commit(5), 7)
            with writer.claim(10):
                pass
            self.assertEqual(reader.next(), lapwing.Record(0, 3, 0, b"zero"))
            self.assertEqual(reader.next(), lapwing.Record(1, 0, 0, b"one"))
            self.assertEqual([record.data for record in reader.poll()], [b"two", b"three", b"four", b"five", b"", b"seven"])
            self.assertIsNone(reader.next(0))
            self.assertIsNone(reader.next(0.001))
            self.assertEqual(list(reader.poll(timeout=0)), [])
            self.assertEqual((reader.info.delivered, reader.position.next_sequence), (8, 8))
            self.assertEqual(writer.info.stats.published, 8)
            self.assertTrue(writer.wait_for_readers(30))

    def test_iteration_ends_with_the_stream(self):
        with lapwing.Reader(self.write(1000), start=lapwing.OLDEST) as reader:
            records = list(reader)
            self.assertEqual([record.sequence for record in records], list(range(1000)))
            self.assertEqual(records[999].data, b"999" * 33)
            self.assertEqual(reader.closed, lapwing.Closed(1000, 1, 5, "done"))

    def write(self, count):
        with lapwing.Writer.create(self.path) as writer:
            for i in range(count):
                writer.publish(str(i).encode() * 33)
            writer.close(5, "done")
        return self.path

    def test_poll_into(self):
        with lapwing.Reader(self.write(10), start=lapwing.OLDEST) as reader:
            buffer = bytearray(100)
            batch = reader.poll_into(buffer)
            self.assertEqual(len(batch), 2)  # 33 bytes each, aligned to 8, in a hundred
            self.assertEqual([bytes(record.data) for record in batch], [b"0" * 33, b"1" * 33])
            with self.assertRaises(lapwing.Error) as raised:
                reader.poll_into(bytearray(32))
            self.assertEqual(raised.exception.status, lapwing.Status.E_TOO_SMALL)
            sizes = [len(reader.poll_into(memoryview(bytearray(4096)), most=3)) for _ in range(3)]
            self.assertEqual(sizes, [3, 3, 2])
            with self.assertRaises(lapwing.EndOfStream):
                reader.poll_into(buffer)
            del batch

    def test_a_batch_is_a_sequence_and_has_columns(self):
        for payloads in ([b"12345"] * 4, [b"x" * (n * 7 % 23) for n in range(40)], [b""] * 3, [b"alone"]):
            with self.subTest(payloads=payloads), lapwing.Writer.create(self.path, existing=lapwing.REPLACE, stamped=True) as writer:
                with lapwing.Reader(self.path) as reader:
                    for tag, payload in enumerate(payloads):
                        writer.publish(payload, tag=tag)
                    batch = reader.poll()
                    self.assertEqual(list(reader.poll(timeout=0)), [])  # what a poll gave does not change with the next one
                    records = list(batch)
                    self.assertEqual(batch.payloads, payloads)
                    self.assertEqual(batch.sequences, list(range(len(payloads))))
                    self.assertEqual(batch.tags, list(range(len(payloads))))
                    self.assertEqual(batch.stamps_ns, [record.stamp_ns for record in records])
                    self.assertTrue(all(batch.stamps_ns))
                    self.assertEqual([batch[at] for at in range(len(batch))], records)
                    self.assertEqual((batch[-1], batch[1:]), (records[-1], records[1:]))
                    self.assertEqual([record.data for record in records], payloads)
                    with self.assertRaises(IndexError):
                        batch[len(batch)]

    def test_nothing_is_cut_short_in_silence(self):
        with lapwing.Writer.create(self.path) as writer, lapwing.Reader(self.path) as reader:
            for tag in (-1, 2**32):
                for call in (writer.publish, writer.try_publish, lambda data, tag: writer.publish_batch([(data, tag)]),
                             lambda data, tag: writer.publish_vectored([data], tag), lambda data, tag: writer.claim(1, tag)):
                    with self.assertRaises(OverflowError):
                        call(b"x", tag)
            self.assertEqual(writer.publish(b"x", tag=2**32 - 1), 0)
            self.assertEqual(reader.next(0).tag, 2**32 - 1)
            for call in (lambda: writer.claim(-1), lambda: writer.evict(-1), lambda: lapwing.evict(self.path, 2**64),
                         lambda: reader.rejoin(lapwing.AFTER, 2**64), lambda: reader.rejoin(-1),
                         lambda: lapwing.Reader(self.path, start=lapwing.AFTER, start_at=2**64),
                         lambda: lapwing.Reader(self.path, filter=(2**32, 0)),
                         lambda: lapwing.Writer.create(self.path, readers=2**32 + 5)):
                with self.assertRaises(OverflowError):
                    call()
            for most in (0, -1, 2**20 + 1, 2**64 + 1):
                with self.assertRaises(ValueError):
                    reader.poll(most, 0)
            for call in (lambda: lapwing.Reader(self.path + "\0b"), lambda: lapwing.Reader(self.path, name="a\0b"),
                         lambda: lapwing.forget(self.path, "a\0b")):
                with self.assertRaises(ValueError):
                    call()
            writer.wait(1e300)
            writer.wait(float("inf"))

    def test_a_large_record_makes_room(self):
        with lapwing.Writer.create(self.path) as writer, lapwing.Reader(self.path) as reader:
            large = os.urandom(writer.info.max_record)
            writer.publish(b"small")
            writer.publish(large)
            self.assertEqual([record.data for record in reader.poll()], [b"small"])
            self.assertEqual([record.data for record in reader.poll()], [large])
            with self.assertRaises(lapwing.Error) as raised:
                writer.publish(large + b"x")
            self.assertEqual(raised.exception.name, "LAPWING_E_TOO_LARGE")

    def test_stamps_filters_observers(self):
        with lapwing.Writer.create(self.path, stamped=True) as writer:
            observer = lapwing.Reader(self.path, reader_class=lapwing.OBSERVER, start=lapwing.OLDEST, filter=(1, 1))
            writer.publish(b"even", tag=2)
            writer.publish(b"odd", tag=3)
            record = observer.next(30)
            self.assertEqual((record.sequence, record.data), (1, b"odd"))
            self.assertGreater(record.stamp_ns, 1_500_000_000_000_000_000)
            with self.assertRaises(lapwing.Error):
                observer.commit()
            observer.close()
            observer.close()


class Loss(Case):
    def test_overrun_report_eviction_and_gap(self):
        with lapwing.Writer.create(self.path, capacity=4096) as writer:
            reader = lapwing.Reader(self.path, name="slow")
            with self.assertRaises(lapwing.WouldOverrun) as raised:
                while True:
                    writer.publish(b"x" * 40)
            refused = raised.exception
            self.assertEqual([found.name for found in refused.readers], ["slow"])
            self.assertEqual(refused.readers[0].pending, refused.sequence)
            self.assertTrue(writer.evict(refused.readers[0].id))
            self.assertFalse(writer.evict(refused.readers[0].id))
            for _ in range(100):
                writer.publish(b"y" * 40)
            with self.assertRaises(lapwing.Evicted) as evicted:
                while True:
                    reader.next(30)
            gap = reader.rejoin(lapwing.OLDEST)
            self.assertEqual(gap.first, evicted.exception.gap.first)
            records = reader.poll(1000)
            self.assertEqual(records[0].sequence, gap.end)
            self.assertEqual(records[-1].sequence, refused.sequence + 99)
            self.assertEqual(list(reader.poll(timeout=0)), [])
            self.assertEqual(reader.info.missed, gap.count)
            reader.close()
            lapwing.forget(self.path, "slow")

    def test_a_lapped_reader_is_told_once(self):
        with lapwing.Writer.create(self.path, capacity=4096) as writer:
            with lapwing.Reader(self.path, reader_class=lapwing.LOSSY) as reader:
                for _ in range(1000):
                    writer.publish(b"z" * 40)
                with self.assertRaises(lapwing.Missed) as raised:
                    reader.next(0)
                gap = raised.exception.gap
                self.assertEqual(gap.first, 0)
                self.assertEqual(reader.next(0).sequence, gap.end)

    def test_resume(self):
        options = {"name": "durable", "hold_while_away": True, "start": lapwing.RESUME}
        with lapwing.Writer.create(self.path) as writer:
            with lapwing.Reader(self.path, manual_commit=True, **options) as reader:
                for i in range(5):
                    writer.publish(bytes([i]))
                self.assertEqual([reader.next().data for _ in range(2)], [b"\0", b"\1"])
                reader.commit()
                reader.next()
            with lapwing.Reader(self.path, **options) as reader:
                self.assertEqual([record.sequence for record in reader.poll()], [2, 3, 4])
            with lapwing.Reader(self.path, **options) as reader:  # nothing of that poll was committed
                self.assertEqual(len(reader.poll()), 3)
                self.assertEqual(list(reader.poll(timeout=0)), [])
                self.assertEqual(reader.info.pending, 0)


class Processes(Case):
    def child(self, code):
        return subprocess.Popen([sys.executable, "-c", code, self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def test_a_killed_writer_is_absent_and_taken_over_from(self):
        child = self.child(
            "import lapwing, sys\n"
            "writer = lapwing.Writer.create(sys.argv[1])\n"
            "writer.publish(b'from the child')\n"
            "print('ready', flush=True)\n"
            "sys.stdin.read()\n"
        )
        self.assertEqual(child.stdout.readline(), b"ready\n")
        with lapwing.Reader(self.path, start=lapwing.OLDEST) as reader:
            with self.assertRaises(lapwing.Error) as raised:
                lapwing.Writer(self.path)
            self.assertEqual(raised.exception.status, lapwing.Status.E_WRITER_BUSY)
            self.assertIn(str(child.pid), str(raised.exception))
            child.kill()
            child.communicate()
            self.assertEqual(reader.next(30).data, b"from the child")
            with self.assertRaises(lapwing.Absent):
                reader.next(30)
            with lapwing.Writer.standby(self.path) as writer:
                self.assertEqual((writer.info.resumed_at, writer.info.stats.takeovers), (1, 1))
                writer.publish(b"next")
                self.assertEqual(reader.next(30).data, b"next")
            with self.assertRaises(lapwing.EndOfStream):
                reader.next(30)

    def test_a_fork_inherits_nothing(self):
        with lapwing.Writer.create(self.path) as writer:
            child = os.fork()
            if child == 0:
                try:
                    writer.publish(b"no")
                except lapwing.Error as error:
                    os._exit(0 if error.status == lapwing.Status.E_FORKED else 1)
                os._exit(2)
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_file_that_shrinks_is_an_error(self):
        lapwing.install_guard()
        with lapwing.Writer.create(self.path) as writer, lapwing.Reader(self.path) as reader:
            writer.publish(b"x")
            for suffix in ("", ".readers"):
                os.truncate(self.path + suffix, 0)
            for call in (lambda: reader.next(0), lambda: reader.poll(timeout=0), lambda: writer.publish(b"y")):
                with self.assertRaises(lapwing.Error) as raised:
                    for _ in range(2):  # the call that meets it may still go through
                        call()
                self.assertEqual(raised.exception.status, lapwing.Status.E_FILE_TRUNCATED)
            writer.abandon()
            for suffix in ("", ".readers", ".lock"):
                os.unlink(self.path + suffix)

    def test_an_exception_leaves_the_stream_open(self):
        with self.assertRaises(ZeroDivisionError):
            with lapwing.Writer.create(self.path) as writer:
                writer.publish(b"x")
                raise ZeroDivisionError
        snapshot, readers = lapwing.inspect(self.path)
        self.assertEqual((snapshot.writer_state, snapshot.next_sequence, readers), (2, 1, []))

    def test_a_signal_ends_a_wait(self):
        with lapwing.Writer.create(self.path), lapwing.Reader(self.path) as reader:

            class Alarm(Exception):
                pass

            def ring(*_):
                raise Alarm

            before = signal.signal(signal.SIGALRM, ring)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with self.assertRaises(Alarm):
                    reader.next()
            finally:
                signal.signal(signal.SIGALRM, before)

    def test_a_signal_ends_a_standby(self):
        class Alarm(Exception):
            pass

        rung = []

        def ring(*_):
            rung.append(len(rung))
            if len(rung) == 3:  # the first two are handled, and the wait goes on
                raise Alarm

        with lapwing.Writer.create(self.path) as writer:
            before = signal.signal(signal.SIGALRM, ring)
            try:
                # Again and again, in case one comes between two waits.
                signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
                with self.assertRaises(Alarm):
                    lapwing.Writer.standby(self.path)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            self.assertEqual(rung, [0, 1, 2])
            writer.publish(b"still the writer")
        with lapwing.Writer.standby(self.path) as writer:
            self.assertEqual(writer.info.epoch, 2)

    def test_a_selector_waits_for_records(self):
        with lapwing.Writer.create(self.path) as writer, lapwing.Reader(self.path) as reader:
            with selectors.DefaultSelector() as selector:
                selector.register(reader, selectors.EVENT_READ)
                publisher = threading.Thread(target=lambda: [writer.publish(b"tick") for _ in range(100)])
                publisher.start()
                seen = 0
                while seen < 100:
                    self.assertTrue(selector.select(30), "readable within 30 s")
                    while records := reader.poll(timeout=0):
                        seen += len(records)
                publisher.join()


if __name__ == "__main__":
    unittest.main()
