//! The demo's final accounts: what was published to each reader, and what became of it, as counted by both sides.

use super::handler::Handled;
use crate::report::Range;
use crate::show::align;
use crate::units::count;
use lapwing::ReaderInfo;
use serde::Serialize;

/// One side's account of one reader.
#[derive(Debug, Serialize)]
pub(crate) struct Account {
    #[serde(rename = "reader")]
    pub(crate) who: &'static str,
    pub(crate) counted_by: &'static str,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    pub(crate) pending: u64,
    /// Delivered once more after a crash; the bus does not count that.
    pub(crate) again: Option<u64>,
}

impl Account {
    pub(crate) fn of_bus(who: &'static str, reader: &ReaderInfo, head: u64) -> Self {
        Self {
            who,
            counted_by: "bus",
            published: head - reader.start.min(head),
            delivered: reader.delivered,
            missed: reader.missed,
            pending: reader.pending,
            again: None,
        }
    }

    /// `told` is what the reader was told it missed; the rest its handler counted.
    pub(crate) fn of_handler(who: &'static str, handled: &Handled, told: &[Range], head: u64) -> Self {
        Self {
            who,
            counted_by: "reader",
            published: head,
            delivered: handled.delivered,
            missed: told.iter().map(|range| range.count).sum(),
            pending: head - handled.next.min(head),
            again: Some(handled.again),
        }
    }

    /// Says whether nothing is unaccounted for.
    pub(crate) fn holds(&self) -> bool {
        self.published == self.delivered + self.missed + self.pending
    }

    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let numbers = |account: &Self| (account.published, account.delivered, account.missed, account.pending);
        numbers(self) == numbers(other)
    }
}

/// The accounts as text.
pub(crate) fn table(accounts: &[Account]) -> String {
    let head =
        ["READER", "COUNTED BY", "PUBLISHED", "", "DELIVERED", "", "MISSED", "", "PENDING", "", "DELIVERED AGAIN"];
    let rows = accounts.iter().map(|account| {
        [
            account.who.to_owned(),
            format!("the {}", account.counted_by),
            count(account.published),
            if account.holds() { "=" } else { "≠" }.to_owned(),
            count(account.delivered),
            "+".to_owned(),
            count(account.missed),
            "+".to_owned(),
            count(account.pending),
            String::new(),
            account.again.map_or(String::new(), count),
        ]
    });
    let mut left = [false; 11];
    (left[0], left[1]) = (true, true);
    align(&std::iter::once(head.map(str::to_owned)).chain(rows).collect::<Vec<_>>(), &left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_nowhere_breaks_the_sum() {
        let gap = Range { first: 5, end: 7, count: 2 };
        let mut handled = Handled { next: 9, delivered: 7, ..Handled::default() };
        let account = Account::of_handler("x", &handled, &[gap], 10);
        assert!(account.holds() && account.pending == 1);
        assert!(table(&[account]).contains('='));
        handled.delivered = 6;
        let account = Account::of_handler("x", &handled, &[gap], 10);
        assert!(!account.holds());
        assert!(table(&[account]).contains('≠'));
    }
}
