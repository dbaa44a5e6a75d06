//! A reader as a stream on tokio: every record once, in order, and the end.

mod common;

use common::Place;
use lapwing::{Item, Options, Policy, Reader, ReaderStream};

#[tokio::test]
async fn a_stream_yields_every_record_and_the_end() {
    let place = Place::new("async");
    let mut writer = Options::new().capacity(64 << 10).create(place.bus()).unwrap();
    let mut stream = ReaderStream::new(Reader::open(place.bus()).unwrap()).unwrap();
    let writing = std::thread::spawn(move || {
        writer.set_policy(Policy::Wait(None));
        for n in 0..20_000u64 {
            writer.publish(&n.to_ne_bytes()).unwrap();
            if n % 1000 == 0 {
                // Lets the reader run dry, so that it has to be woken.
                writer.wait_for_readers(None).unwrap();
            }
        }
        writer.close_with(3, "enough").unwrap();
    });
    let mut next = 0;
    let closed = loop {
        match stream.next().await.expect("an end before None").unwrap() {
            Item::Record(record) => {
                assert_eq!(record.sequence, next);
                assert_eq!(record.payload, next.to_ne_bytes());
                next += 1;
            }
            Item::Closed(closed) => break closed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((next, closed.code, closed.reason.as_str()), (20_000, 3, "enough"));
    assert!(stream.next().await.is_none());
    writing.join().unwrap();
}
