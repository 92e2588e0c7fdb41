//! Forecasts against what jobs then do, on graphs that are drawn at random, and pruned between.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::forecast::{Cause, Expected, Forecast, Found};
use crate::local::store::Limits;
use crate::local::{KeepStorage, Local, LocalOptions, architecture};
use crate::oci::RegistryOptions;
use crate::op::{Copy, Diff, Edge, File, FileActionKind, Merge, Metadata, Mkfile, Op, Platform, Rm, Source};
use crate::solver::{Export, Exported, HostTree, JobOptions, LocalDir, Solver as _, progress_channel};
use crate::{Definition, Digest, Error, Graph};

/// A clock on which no two things happen at once.
fn tick() -> SystemTime {
    static TICKS: AtomicU64 = AtomicU64::new(1_700_000_000_000);
    SystemTime::UNIX_EPOCH + Duration::from_millis(TICKS.fetch_add(1, Ordering::Relaxed))
}

fn local(root: &Path) -> Local {
    reaching(root, true)
}

/// An engine that asks registries, or none.
fn reaching(root: &Path, offline: bool) -> Local {
    Local::new(LocalOptions {
        root: root.to_owned(),
        path: OsString::new(),
        clock: tick,
        engine: None,
        registries: RegistryOptions::default(),
        offline,
        keep_storage: KeepStorage::All,
    })
}

/// Solves a definition; returns which of its vertices the job called cached.
async fn solve(local: &Local, definition: &Definition, options: JobOptions) -> Result<(BTreeMap<Digest, bool>, Exported), Error> {
    let (sender, mut receiver) = progress_channel(1 << 20);
    let reading = tokio::spawn(async move {
        let mut cached = BTreeMap::new();
        while let Some(progress) = receiver.recv().await {
            let done = progress.vertices.into_iter().filter(|vertex| vertex.completed.is_some());
            cached.extend(done.map(|vertex| (vertex.digest, vertex.cached)));
        }
        cached
    });
    let job = local.open(options, sender).await?;
    let solved = job.solve(definition).await?;
    let config = format!(r#"{{"architecture":"{}","os":"linux","config":{{}},"history":[{{}}]}}"#, architecture());
    let exported = job.export(solved, config.into_bytes()).await?;
    Ok((reading.await.unwrap(), exported))
}

/// Numbers that look random and are the same in every run (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }
}

/// What sources stand for.
struct World {
    folder: tempfile::TempDir,
    /// The digests of the images in the layout.
    images: Vec<String>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut images = Vec::new();
        for content in ["one", "two"] {
            let exports = vec![Export::Layout { names: Vec::new(), dest: folder.path().join("layout") }];
            let mut graph = Graph::new();
            let file = graph.add(File::chain(None, [Mkfile::new("/image", 0o644, content).into()]), Metadata::default()).unwrap();
            let options = JobOptions { exports, ..JobOptions::default() };
            let made = solve(&local(&folder.path().join("maker")), &graph.definition(file.into()), options).await.unwrap();
            images.push(made.1.response["containerimage.digest"].clone());
        }
        fs::create_dir(folder.path().join("source")).unwrap();
        Self { folder, images }
    }

    fn options(&self) -> JobOptions {
        let dir = LocalDir { path: self.folder.path().join("source"), admits: Arc::new(|_, _| true), content: None };
        let machine = HostTree { digest: Digest::of(b"machine"), entries: Vec::new() };
        JobOptions {
            host_trees: [("machine".to_owned(), machine)].into(),
            locals: [("source".to_owned(), dir)].into(),
            oci_layouts: [("mine".to_owned(), self.folder.path().join("layout"))].into(),
            ..JobOptions::default()
        }
    }

    /// Draws a graph: sources, and what changes, lays and compares them. Contents come from so few that
    /// some are there already, and some vertices give what another one gives.
    fn draw(&self, random: &mut Random) -> Definition {
        fs::write(self.folder.path().join("source/file"), ["x", "y"][random.below(2)]).unwrap();
        let mut graph = Graph::new();
        let image = Source::oci_layout(&format!("any/name@{}", self.images[random.below(2)])).attr("oci.store", "mine");
        let mut made: Vec<Edge> = Vec::new();
        let mut add = |op: Op, ignore_cache: bool, made: &mut Vec<Edge>| {
            let metadata = Metadata { ignore_cache, ..Metadata::default() };
            made.push(graph.add(op, metadata).unwrap().into());
        };
        add(Op::on(Platform::new("linux", architecture()), image), random.below(8) == 0, &mut made);
        add(Source::local("source").into(), random.below(8) == 0, &mut made);
        for _ in 0..3 + random.below(5) {
            let ignored = random.below(16) == 0;
            let (one, other) = (made[random.below(made.len())], made[random.below(made.len())]);
            let file = |content: usize| Mkfile::new("/made", 0o644, ["p", "q", "r"][content]);
            let op: Op = match random.below(6) {
                0 => File::chain(None, [file(random.below(3)).into()]).into(),
                1 => File::chain(Some(one), [file(random.below(3)).into()]).into(),
                2 => File::chain(Some(one), [Copy::new(other, "/", "/copied").into()]).into(),
                // What it holds does not depend on what it takes in.
                3 => {
                    let copied = Copy::new(one, "/", "/x");
                    File::chain(None, [copied.into(), Rm::new("/x").into(), file(random.below(3)).into()]).into()
                }
                4 => Merge { inputs: vec![one, other] }.into(),
                _ => Diff { lower: Some(one), upper: Some(other) }.into(),
            };
            add(op, ignored, &mut made);
        }
        let all = graph.add(Merge { inputs: made }, Metadata::default()).unwrap();
        graph.definition(all.into())
    }
}

/// How often something happened.
#[derive(Debug, Default)]
struct Counts {
    cached: usize,
    ran: usize,
    unchanged: usize,
}

/// Compares a forecast with what was done.
fn compare(definition: &Definition, forecast: &Forecast, cached: &BTreeMap<Digest, bool>, counts: &mut Counts) {
    let mut ran_at_or_above = BTreeSet::new();
    for vertex in definition.vertices() {
        let above = vertex.op.kind.inputs().iter().any(|edge| ran_at_or_above.contains(&edge.vertex));
        let (expected, was) = (&forecast[&vertex.digest], cached[&vertex.digest]);
        if above || !was {
            ran_at_or_above.insert(vertex.digest);
        }
        match (expected, was) {
            (Expected::Cached(_), true) => counts.cached += 1,
            (Expected::Runs(_), false) => counts.ran += 1,
            (Expected::Runs(_), true) if above => counts.unchanged += 1,
            _ => panic!("{} was foretold as {expected:?}, and cached is {was}", vertex.name()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foretold_as_cached_is_and_what_runs_has_a_cause() {
    let world = World::new().await;
    let local = local(&world.folder.path().join("store"));
    let (mut random, mut counts) = (Random(1), Counts::default());
    for round in 0..60 {
        let definition = world.draw(&mut random);
        let forecast = local.forecast(&definition, &world.options()).await.unwrap().unwrap();
        let (cached, _) = solve(&local, &definition, world.options()).await.unwrap();
        compare(&definition, &forecast, &cached, &mut counts);
        if round % 9 == 8 {
            // All of it, or about half.
            let max_bytes = if random.below(3) == 0 { 0 } else { 20_000 };
            local.prune(Limits { max_bytes, keep_newer: Duration::ZERO }).await.unwrap();
        }
    }
    assert!(counts.cached > 100 && counts.ran > 100 && counts.unchanged > 10, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_vertices_share_is_cached_for_neither() {
    let world = World::new().await;
    let local = local(&world.folder.path().join("store"));
    let mut graph = Graph::new();
    let mut file = |base: Option<Edge>, kinds: Vec<FileActionKind>| -> Edge {
        graph.add(File::chain(base, kinds), Metadata::default()).unwrap().into()
    };
    // Made otherwise, they hold the same: what is made of either is one result.
    let one = file(None, vec![Mkfile::new("/a", 0o644, "a").into()]);
    let other =
        file(None, vec![Mkfile::new("/b", 0o644, "b").into(), Rm::new("/b").into(), Mkfile::new("/a", 0o644, "a").into()]);
    let on = [one, other].map(|base| file(Some(base), vec![Mkfile::new("/c", 0o644, "c").into()]));
    let merged = |graph: &mut Graph, inputs: [Edge; 2]| {
        let all = graph.add(Merge { inputs: inputs.into() }, Metadata::default()).unwrap();
        graph.definition(all.into())
    };
    let (bases, both) = (merged(&mut graph, [one, other]), merged(&mut graph, on));
    solve(&local, &bases, world.options()).await.unwrap();
    let forecast = local.forecast(&both, &world.options()).await.unwrap().unwrap();
    assert!(on.iter().all(|edge| forecast[&edge.vertex] == Expected::Runs(Cause::New)), "{forecast:?}");
    let (cached, _) = solve(&local, &both, world.options()).await.unwrap();
    assert_eq!([one, other].map(|edge| cached[&edge.vertex]), [true, true]);
    assert_eq!(on.map(|edge| cached[&edge.vertex]), [false, false]);
    let (cached, _) = solve(&local, &both, world.options()).await.unwrap();
    assert!(cached.values().all(|cached| *cached), "{cached:?}");
}

#[tokio::test]
async fn a_cause_is_named_and_nothing_is_made() {
    let world = World::new().await;
    let root = world.folder.path().join("none");
    let mut graph = Graph::new();
    let mut add = |op: Op, ignore_cache: bool| graph.add(op, Metadata { ignore_cache, ..Metadata::default() }).unwrap();
    let on = |source: Source| Op::on(Platform::new("linux", architecture()), source);
    let pinned = format!("example.invalid/a:1@{}", Digest::of(b"a"));
    let image = add(on(Source::image(&pinned)), false);
    let tagged = add(on(Source::image("example.invalid/a:1")), false);
    let layout = add(on(Source::oci_layout(&format!("any/name@{}", world.images[0])).attr("oci.store", "mine")), false);
    let strange = add(Source::local("elsewhere").into(), false);
    let ignored = add(File::chain(None, [Mkfile::new("/a", 0o644, "a").into()]).into(), true);
    let fresh = add(File::chain(None, [Mkfile::new("/b", 0o644, "b").into()]).into(), false);
    let behind = add(File::chain(Some(fresh.into()), [Rm::new("/b").into()]).into(), false);
    let machine = add(Source::local("machine").into(), false);
    let inputs = [image, tagged, layout, strange, ignored, behind, machine].map(Edge::from).into();
    let all = add(Merge { inputs }.into(), false);
    let definition = graph.definition(all.into());
    let offline = local(&root).forecast(&definition, &world.options()).await.unwrap().unwrap();
    for vertex in [image, tagged] {
        let Expected::Runs(Cause::Fails(reason)) = &offline[&vertex] else { panic!("{:?}", offline[&vertex]) };
        assert!(reason.contains("no registry may be asked"), "{reason}");
    }
    let forecast = reaching(&root, false).forecast(&definition, &world.options()).await.unwrap().unwrap();
    let expected = [
        (image, Expected::Runs(Cause::UnknownImage)),
        (tagged, Expected::Runs(Cause::Asked)),
        (layout, Expected::Runs(Cause::Layers { missing: 1, of: 1 })),
        (ignored, Expected::Runs(Cause::IgnoresCache)),
        (fresh, Expected::Runs(Cause::New)),
        (behind, Expected::Runs(Cause::Behind(fresh))),
        (machine, Expected::Cached(Found::Here)),
        (all, Expected::Runs(Cause::Behind(image))),
    ];
    for (vertex, expected) in expected {
        assert_eq!(forecast[&vertex], expected, "{}", graph.vertex(vertex).unwrap().name());
    }
    let Expected::Runs(Cause::Fails(reason)) = &forecast[&strange] else { panic!("{:?}", forecast[&strange]) };
    assert!(reason.contains("\"elsewhere\" is not offered"), "{reason}");
    assert!(!root.exists(), "a forecast made a store");
}
