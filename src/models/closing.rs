//! The end of the stream: told after the last record, with the sequence and the reason of that close.

use super::rig::{Bus, Read, Reader, Writer, explore};
use crate::layout::ring as at;
use loom::thread;

#[test]
fn the_end_comes_after_the_last_record() {
    explore("the end comes after the last record", 2, || {
        let bus = Bus::with(256, 128, 1, true);
        let mut writer = Writer::take_over(&bus, false);
        writer.publish().unwrap();
        let mut reader = Reader::new(&bus, bus.place(1));
        let close = thread::spawn(move || {
            writer.publish().unwrap();
            writer.bus.ring.close(writer.publisher.head, 1, 7, "");
        });
        let mut read = 1;
        for _ in 0..3 {
            match reader.read() {
                Read::Record(sequence, _) => {
                    assert_eq!(sequence, read);
                    read += 1;
                }
                Read::Closed => {
                    assert_eq!(read, 2, "closed before the last record");
                    assert_eq!(bus.ring.get(at::CLOSED_SEQUENCE), 2);
                    assert_eq!(bus.ring.get(at::REASON), 7);
                    break;
                }
                other => assert_eq!(other, Read::Empty),
            }
        }
        close.join().unwrap();
    });
}

/// Whoever sees a record of the next writer has seen the end before it, also by the short cuts.
#[test]
fn the_end_comes_before_the_next_writers_record() {
    explore("the end comes before the next writer's record", 2, || {
        let bus = Bus::with(256, 128, 1, true);
        let mut writer = Writer::take_over(&bus, false);
        writer.publish().unwrap();
        let mut reader = Reader::new(&bus, bus.place(1));
        let writers = thread::spawn(move || {
            writer.bus.ring.close(writer.publisher.head, 1, 7, "");
            Writer::take_over(&writer.bus, false).publish().unwrap();
        });
        for _ in 0..2 {
            match reader.read() {
                Read::Closed => break,
                other => assert_eq!(other, Read::Empty, "before the end"),
            }
        }
        writers.join().unwrap();
    });
}
