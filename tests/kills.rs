//! Releases that are killed, interrupted or terminated at a chosen moment, and the same command
//! after that.
//!
//! A moment is an event of the progress and a few milliseconds more, the middle of a blob that is
//! fetched, or a share of a whole release's time. It meets an empty cache, one with images and no
//! steps, or one with everything and `--no-cache`; the next command comes at once, or when the
//! killed one's processes are gone.
//!
//! Red when: a kill changes the digest or a byte of the next archive, damages the cache or an old
//! output, or leaves a process, a mount or a temporary file past the next command; a signal to stop
//! is not obeyed within the contract's time, or leaves anything at all.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Campaign, Random, Roche, Running, Site, Stand, cells};

/// Writes for a while, and leaves a session behind that nobody waits for.
const CARGO: &str = "[ \"$1\" = build ] || exit 0
setsid sleep 3600 >/dev/null 2>&1 &
mkdir -p target/release/deps
for i in 1 2 3 4 5 6; do head -c 100000 /dev/zero >target/release/deps/$i; sleep 0.02; done
exec build-service";

/// How long a release may take here.
const PATIENCE: Duration = Duration::from_secs(120);

/// What may pass between a signal and the end: the contract's two seconds, with slack for a busy
/// machine.
const PROMPT: Duration = Duration::from_secs(10);

/// When a release is struck.
#[derive(Clone, Copy)]
enum Moment {
    /// So long after so many events of the progress.
    Event(usize, Duration),
    /// In the middle of the blob after so many others.
    Blob(i64),
    /// So long after the start.
    Time(Duration),
}

/// What the release finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Images,
    Everything,
}

/// What releases of a site are compared with.
struct Bench {
    site: Site,
    clean: (String, Vec<u8>),
    /// A stand with all images and no step's result.
    images: Stand,
    /// A stand with everything.
    full: Stand,
    /// How many events a release has, and how long it takes, by what it finds.
    events: [usize; 3],
    times: [Duration; 3],
}

impl Bench {
    fn new() -> Self {
        let site = Site::new(CARGO);
        let full = site.stand("full");
        let started = Instant::now();
        let first = site.release(&full).within(PATIENCE).run();
        let times = [started.elapsed(), Duration::ZERO, Duration::ZERO];
        let events = [counted(&first.stderr), 0, 0];
        let clean = full.made(first);
        site.nothing_is_left(&full);
        // Steps are known by what they are given: another function shares the images alone.
        let images = site.stand("images");
        let function = std::fs::read_to_string(site.project().join("functions.rs")).unwrap();
        site.write("functions.rs", "pub fn handler() -> tide::Server<()> { another() }\n");
        site.release(&images).within(PATIENCE).run().succeeds();
        site.write("functions.rs", &function);
        let mut bench = Self { site, clean, images, full, events, times };
        for found in [Found::Images, Found::Everything] {
            let stand = bench.stand(found, "measured");
            let started = Instant::now();
            let ended = bench.release(found, &stand).run();
            bench.times[found as usize] = started.elapsed();
            bench.events[found as usize] = counted(&ended.stderr);
            assert_eq!(stand.made(ended), bench.clean, "without a kill");
        }
        println!("a release has {:?} events and takes {:.1?}, by what it finds", bench.events, bench.times);
        bench
    }

    fn stand(&self, found: Found, name: &str) -> Stand {
        match found {
            Found::Nothing => self.site.stand(name),
            Found::Images => self.site.copy(&self.images, name),
            Found::Everything => self.site.copy(&self.full, name),
        }
    }

    fn release(&self, found: Found, stand: &Stand) -> Roche {
        let call = self.site.release(stand).within(PATIENCE);
        if found == Found::Everything { call.arg("--no-cache") } else { call }
    }

    /// A cell's number gives its kind, chance the rest.
    fn moment(&self, cell: usize, random: &mut Random) -> (Found, Moment) {
        let found = [Found::Nothing, Found::Images, Found::Everything][cell % 3];
        let turn = cell / 3;
        let moment = match turn % 6 {
            4 if found == Found::Nothing => {
                self.site.registry.go_on();
                Moment::Blob(i64::try_from(random.below(self.site.registry.blobs() as u64)).unwrap())
            }
            5 => Moment::Time(self.times[found as usize].mul_f64(random.below(10_000) as f64 / 10_000.0)),
            // Spread over all events; most of what happens follows an event within milliseconds.
            _ => {
                let event = 1 + (turn * 37 + random.below(37) as usize) % self.events[found as usize];
                Moment::Event(event, Duration::from_micros(random.below(4) * random.below(8_000)))
            }
        };
        (found, moment)
    }

    /// Waits for a moment of a running release; says whether it came.
    fn wait_for(&self, moment: Moment, running: &mut Running) -> bool {
        let started = Instant::now();
        let after = match moment {
            Moment::Event(_, after) | Moment::Time(after) => after,
            Moment::Blob(_) => Duration::ZERO,
        };
        loop {
            let come = match moment {
                Moment::Event(event, _) => counted(&running.said()) >= event,
                Moment::Blob(_) => self.site.registry.has_stopped(),
                Moment::Time(_) => true,
            };
            if come {
                thread::sleep(after);
                return !running.has_ended();
            }
            if running.has_ended() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "the moment never came:\n{}", running.said());
            thread::sleep(Duration::from_micros(300));
        }
    }

    /// The same command again, and all that is to be true after it.
    fn again(&self, found: Found, stand: &Stand) {
        let made = stand.made(self.release(found, stand).run());
        assert_eq!(made.0, self.clean.0, "another digest");
        assert!(made.1 == self.clean.1, "the archive has other bytes");
        self.site.verify(stand, None);
        self.site.nothing_is_left(stand);
        assert_eq!(stand.partial(), Vec::<std::path::PathBuf>::new(), "all blobs were fetched");
    }
}

/// How many starts and ends of vertices the progress has told of.
fn counted(rawjson: &str) -> usize {
    rawjson.matches("\"started\":\"").count() + rawjson.matches("\"completed\":\"").count()
}

fn told(found: Found, moment: Moment, rest: &str) -> String {
    let found = match found {
        Found::Nothing => "empty cache",
        Found::Images => "images there",
        Found::Everything => "--no-cache",
    };
    match moment {
        Moment::Event(event, after) => format!("{found}, event {event} + {after:?}, {rest}"),
        Moment::Blob(blob) => format!("{found}, blob {blob} half, {rest}"),
        Moment::Time(time) => format!("{found}, at {time:?}, {rest}"),
    }
}

/// What may stand at the archive's place: the old file or the whole new one.
fn old_or_new(bench: &Bench, archive: &Path) {
    let bytes = std::fs::read(archive).unwrap();
    assert!(bytes == b"old" || bytes == bench.clean.1, "{} bytes that are neither the old file nor the new one", bytes.len());
}

#[test]
fn a_killed_release_leaves_nothing_that_the_next_one_minds() {
    let bench = Bench::new();
    let mut campaign = Campaign::start("kill -9, then the same command");
    let mut random = campaign.random();
    let mut struck = 0;
    for cell in 0..cells(12, 300) {
        let (found, moment, at_once, kills, name) = loop {
            let (found, moment) = bench.moment(cell, &mut random);
            let (at_once, kills) = (random.below(2) == 0, 1 + random.below(4) / 3);
            let rest =
                format!("{}{}", if at_once { "at once" } else { "when it is quiet" }, if kills > 1 { ", twice" } else { "" });
            let name = told(found, moment, &rest);
            if campaign.is_new(&name) {
                break (found, moment, at_once, kills, name);
            }
        };
        campaign.cell(name, |_| {
            let stand = bench.stand(found, &format!("cell{cell}"));
            std::fs::write(stand.archive(), "old").unwrap();
            let mut killed = 0;
            for _ in 0..kills {
                if let Moment::Blob(blob) = moment {
                    bench.site.registry.stop_after(blob);
                }
                let mut running = bench.release(found, &stand).start();
                bench.wait_for(moment, &mut running);
                killed += u64::from(running.kill());
                bench.site.registry.go_on();
                old_or_new(&bench, &stand.archive());
                if !at_once {
                    bench.site.nothing_runs(&stand);
                }
            }
            bench.again(found, &stand);
            struck += usize::from(killed > 0);
            if killed > 0 { format!("killed {killed}x, then the clean digest") } else { "had ended before".to_owned() }
        });
    }
    println!("{struck} releases were killed while they ran");
    campaign.finish();
}

#[test]
fn a_release_that_is_told_to_stop_stops_and_leaves_nothing() {
    let bench = Bench::new();
    let mut campaign = Campaign::start("SIGINT and SIGTERM, then the same command");
    let mut random = campaign.random();
    let mut slowest = Duration::ZERO;
    for cell in 0..cells(8, 80) {
        let (signal, code) = [("INT", 130), ("TERM", 143)][cell / 2 % 2];
        let (found, moment, name) = loop {
            let (found, moment) = bench.moment(cell, &mut random);
            let name = told(found, moment, signal);
            if campaign.is_new(&name) {
                break (found, moment, name);
            }
        };
        campaign.cell(name, |_| {
            let stand = bench.stand(found, &format!("cell{cell}"));
            std::fs::write(stand.archive(), "old").unwrap();
            if let Moment::Blob(blob) = moment {
                bench.site.registry.stop_after(blob);
            }
            let mut running = bench.release(found, &stand).start();
            let came = bench.wait_for(moment, &mut running);
            if came {
                running.signal(signal);
            }
            let ended = running.ends_within(PROMPT);
            bench.site.registry.go_on();
            old_or_new(&bench, &stand.archive());
            let outcome = match ended.status.code() {
                Some(0) => "had ended before".to_owned(),
                // The signal came before anybody could wait for it.
                None if ended.stderr.is_empty() => "ended at once".to_owned(),
                _ => {
                    slowest = slowest.max(ended.waited);
                    if let Err(reason) = ended.check_failure(code, &["cancelled"]) {
                        panic!("{reason}\n{}", ended.story());
                    }
                    format!("{code} after {:.2} s", ended.waited.as_secs_f32())
                }
            };
            bench.site.nothing_is_left(&stand);
            bench.again(found, &stand);
            outcome
        });
    }
    println!("the slowest took {slowest:.2?} from the signal to the end");
    campaign.finish();
}
