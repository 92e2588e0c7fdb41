//! Many releases at once on one empty cache.
//!
//! Red when: one of them fails or waits for ever, two make different bytes, a blob is fetched twice,
//! the cache is damaged, or anything is left.

use std::time::Duration;

use crate::harness::{Campaign, Running, Site, Stand, cells};

const CARGO: &str = "[ \"$1\" = build ] || exit 0
sleep 0.05
exec build-service";

/// How long the slowest of them may take.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn a_crowd_on_an_empty_cache_fetches_each_blob_once() {
    let site = Site::new(CARGO);
    // Long enough that whoever does not wait for another one's fetch begins its own.
    site.registry.pause(Duration::from_millis(30));
    let mut campaign = Campaign::start("releases at once on one empty cache");
    for crowd in if cells(0, 1) == 0 { vec![2, 8] } else { vec![2, 8, 16, 32, 64] } {
        for options in [&[][..], &["--no-cache"]] {
            campaign.cell(format!("{crowd} releases {}", options.join(" ")), |_| {
                let shared = site.stand(&format!("crowd{crowd}{}", options.len()));
                site.registry.take_fetched();
                let stands: Vec<Stand> = (0..crowd)
                    .map(|i| {
                        let stand = shared.beside(&format!("{i}"));
                        std::fs::remove_dir_all(stand.cache()).unwrap();
                        std::os::unix::fs::symlink(shared.cache(), stand.cache()).unwrap();
                        stand
                    })
                    .collect();
                let running: Vec<Running> =
                    stands.iter().map(|stand| site.release(stand).args(options).within(PATIENCE).start()).collect();
                let made: Vec<_> =
                    running.into_iter().zip(&stands).map(|(call, stand)| stand.made(call.ends_within(PATIENCE))).collect();
                assert!(made.iter().all(|other| *other == made[0]), "not all made the same image");
                let fetched = site.registry.take_fetched();
                assert_eq!(fetched.len(), site.registry.blobs(), "not every blob was fetched");
                let twice: Vec<_> = fetched.iter().filter(|(_, times)| **times != 1).collect();
                assert!(twice.is_empty(), "fetched more than once: {twice:?}");
                site.verify(&shared, None);
                stands.iter().for_each(|stand| site.nothing_is_left(stand));
                format!("{} blobs, each fetched once", fetched.len())
            });
        }
    }
    campaign.finish();
}
