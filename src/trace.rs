//! Structured logging of state changes, with the feature `tracing`; without it, nothing at all.
//!
//! Only where something changes hands: a bus is created, replaced or removed, somebody attaches, joins, is evicted or reaped, a writer
//! takes over or closes. Never where records are published or read, so the feature costs them nothing.
//!
//! Each event has the target `lapwing`, the field `event` with the change as one word, and `path`.

/// Tells a state change: level, word, path of the ring, and fields as `tracing` takes them.
macro_rules! changed {
    ($level:ident, $event:literal, $path:expr $(, $($fields:tt)+)?) => {
        #[cfg(feature = "tracing")]
        tracing::$level!(target: "lapwing", event = $event, path = %$path.display() $(, $($fields)+)?);
    };
}

pub(crate) use changed;
