//! A bus looked at again and again, without disturbing it.

use crate::report::Reader;
use lapwing::{Bus, HealthLimits, HealthWatch, ReaderHealth, ReaderInfo, Snapshot};
use std::path::{Path, PathBuf};
use std::time::Instant;

pub(crate) struct Sight {
    path: PathBuf,
    limits: HealthLimits,
    watch: HealthWatch,
}

/// What was seen at one moment, judged by what was seen before.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) at: Instant,
    pub(crate) snapshot: Snapshot,
    /// One for each of the snapshot's readers.
    pub(crate) health: Vec<ReaderHealth>,
}

impl Sight {
    pub(crate) fn new(path: &Path, limits: HealthLimits) -> Self {
        Self { path: path.into(), limits, watch: HealthWatch::new(limits) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn limits(&self) -> HealthLimits {
        self.limits
    }

    pub(crate) fn look(&mut self) -> lapwing::Result<Look> {
        let snapshot = Bus::inspect(&self.path)?;
        let at = Instant::now();
        let health = self.watch.observe(&snapshot, at);
        Ok(Look { at, snapshot, health })
    }
}

impl Look {
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&ReaderInfo, &ReaderHealth)> {
        self.snapshot.readers.iter().flatten().zip(&self.health)
    }

    /// The readers as reports show them; `None` without permission to read the table.
    pub(crate) fn table(&self) -> Option<Vec<Reader>> {
        self.snapshot.readers.as_ref().map(|_| self.pairs().map(Reader::from).collect())
    }

    pub(crate) fn registered(&self) -> Option<usize> {
        self.snapshot.readers.as_ref().map(Vec::len)
    }

    pub(crate) fn served(&self) -> Option<usize> {
        self.registered().map(|_| self.health.iter().filter(|health| health.health.is_served()).count())
    }
}
