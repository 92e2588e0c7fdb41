//! Campaigns: many cells of one kind, drawn from a seed, printed as a table.
//!
//! A plain run draws a sample of the cells, `tests/soak` (`ROCHE_SOAK`) all of them.
//! `ROCHE_TEST_SEED=N` draws the same cells again and `ROCHE_TEST_CELL=I` runs one of them alone;
//! the table says both.
//!
//! Invariant: a cell depends on the seed and its number alone, and no two of a campaign are equal.

use std::any::Any;
use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Numbers that look random and are the same for one seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below a limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// How many cells there are: all in the soak, else a sample.
pub(crate) fn cells(sample: usize, all: usize) -> usize {
    if env::var_os("ROCHE_SOAK").is_some() { all } else { sample }
}

/// A campaign in progress.
pub(crate) struct Campaign {
    name: &'static str,
    seed: u64,
    only: Option<usize>,
    started: Instant,
    names: BTreeSet<String>,
    count: usize,
    ran: usize,
    slowest: Duration,
    failures: Vec<String>,
}

impl Campaign {
    /// Starts a campaign and the head of its table.
    pub(crate) fn start(name: &'static str) -> Self {
        let number = |variable: &str| {
            let text = env::var(variable).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{variable} is not a number: {text:?}")))
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let seed = number("ROCHE_TEST_SEED").unwrap_or_else(|| u64::from(now.subsec_nanos()) ^ now.as_secs());
        let only = number("ROCHE_TEST_CELL").map(|cell| usize::try_from(cell).expect("a cell's number is small"));
        println!("\n{name} (ROCHE_TEST_SEED={seed})\n{:>5} {:>7}  {:<62} outcome", "cell", "seconds", "what");
        Self {
            name,
            seed,
            only,
            started: Instant::now(),
            names: BTreeSet::new(),
            count: 0,
            ran: 0,
            slowest: Duration::ZERO,
            failures: Vec::new(),
        }
    }

    /// The random numbers that the campaign's own choices are made with.
    pub(crate) fn random(&self) -> Random {
        Random(self.seed)
    }

    /// Says whether no cell was of that kind yet.
    pub(crate) fn is_new(&self, what: &str) -> bool {
        !self.names.contains(what)
    }

    /// Runs a cell; what it returns is its outcome, and a panic is its failure.
    pub(crate) fn cell(&mut self, what: String, body: impl FnOnce(&mut Random) -> String) {
        let number = self.count;
        self.count += 1;
        assert!(self.names.insert(what.clone()), "the cell {what:?} comes twice in {}", self.name);
        if self.only.is_some_and(|only| only != number) {
            return;
        }
        let started = Instant::now();
        let mut random = Random(self.seed ^ (number as u64 + 1).wrapping_mul(0x0100_0000_01b3));
        let outcome = catch_unwind(AssertUnwindSafe(|| body(&mut random)));
        let took = started.elapsed();
        self.ran += 1;
        self.slowest = self.slowest.max(took);
        let told = match &outcome {
            Ok(told) => told,
            Err(_) => "FAILS",
        };
        println!("{number:>5} {:>7.2}  {what:<62} {told}", took.as_secs_f32());
        if let Err(panic) = outcome {
            let seed = self.seed;
            let reason = text(&*panic);
            self.failures.push(format!("cell {number} ({what}; ROCHE_TEST_SEED={seed} ROCHE_TEST_CELL={number}):\n{reason}"));
        }
    }

    /// Ends the table with its sums; fails the test where a cell did, or none ran.
    #[track_caller]
    pub(crate) fn finish(self) {
        let failed = self.failures.len();
        println!(
            "{}: {} distinct cells, {} as they should be, {failed} not; {:.0} s, the slowest {:.1} s",
            self.name,
            self.ran,
            self.ran - failed,
            self.started.elapsed().as_secs_f32(),
            self.slowest.as_secs_f32()
        );
        assert!(self.ran > 0, "no cell of {} ran", self.name);
        assert!(failed == 0, "{}: {failed} of {} cells fail\n{}", self.name, self.ran, self.failures.join("\n\n"));
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().cloned();
    said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "a panic".to_owned())
}
