//! What does a graph of 100,000 vertices cost to build, digest and encode?
//!
//! Each shape runs in a process of its own, so that the peak of memory is that shape's alone:
//! a chain (every exec over the result of the one before) and a fan (every exec over one image,
//! all merged). Printed per step: wall time, CPU time and the peak resident size so far.
//! Run: `cargo bench -p roche --bench graph`.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use roche_engine::op::{Edge, Exec, Merge, Metadata, Op, Platform, Source};
use roche_engine::{Definition, Digest, Graph, GraphError};

const VERTICES: usize = 100_000;
const SHAPES: [&str; 2] = ["chain", "fan"];

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds flags of its own (`--bench`).
    match std::env::args().nth(1).as_deref() {
        Some("chain") => measure("chain", chain),
        Some("fan") => measure("fan", fan),
        _ => {
            println!("{VERTICES} vertices\n{:<16}{:>10}{:>10}{:>10}", "", "wall ms", "CPU ms", "peak MB");
            for shape in SHAPES {
                if !Command::new(std::env::current_exe()?).arg(shape).status()?.success() {
                    return Err(format!("the {shape} failed").into());
                }
            }
            Ok(())
        }
    }
}

fn measure(shape: &str, grow: fn(&mut Graph) -> Result<Digest, GraphError>) -> Result<(), Box<dyn Error>> {
    let start = Meter::start()?;
    let mut graph = Graph::new();
    let target = grow(&mut graph)?;
    start.print(shape, "add")?;
    let definition = graph.definition(target.into());
    start.print(shape, "cut out")?;
    let bytes = definition.encode();
    start.print(shape, "encode")?;
    assert!(definition.vertices().len() > VERTICES, "{} vertices", definition.vertices().len());
    drop((graph, definition));

    let start = Meter::start()?;
    let decoded = Definition::decode(&bytes)?;
    start.print(shape, "decode again")?;
    assert_eq!(decoded.target(), target.into());
    println!("{shape:<8}{:.1} MB encoded", bytes.len() as f64 / 1e6);
    Ok(())
}

fn exec(root: Digest, i: usize) -> Op {
    Op::on(Platform::new("linux", "amd64"), Exec::new(root, "/", &["step", &i.to_string()]))
}

fn image(graph: &mut Graph) -> Result<Digest, GraphError> {
    graph.add(Op::on(Platform::new("linux", "amd64"), Source::image("docker.io/library/alpine:3.20")), Metadata::default())
}

fn chain(graph: &mut Graph) -> Result<Digest, GraphError> {
    let mut last = image(graph)?;
    for i in 0..VERTICES {
        last = graph.add(exec(last, i), Metadata::default())?;
    }
    Ok(last)
}

fn fan(graph: &mut Graph) -> Result<Digest, GraphError> {
    let root = image(graph)?;
    let inputs =
        (0..VERTICES).map(|i| graph.add(exec(root, i), Metadata::default()).map(Edge::from)).collect::<Result<_, _>>()?;
    graph.add(Merge { inputs }, Metadata::default())
}

/// Reads the clocks at the start; prints what was used since.
struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    fn start() -> Result<Self, Box<dyn Error>> {
        Ok(Self { wall: Instant::now(), cpu: cpu()? })
    }

    fn print(&self, shape: &str, step: &str) -> Result<(), Box<dyn Error>> {
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), (cpu()? - self.cpu).as_secs_f64());
        println!("{:<16}{:>10.1}{:>10.1}{:>10.1}", format!("{shape}: {step}"), wall * 1e3, cpu * 1e3, peak_bytes()? as f64 / 1e6);
        Ok(())
    }
}

/// The CPU time of this process, which has one thread (Linux's `schedstat`, in nanoseconds).
fn cpu() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = stat.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The most memory that was resident so far (`VmHWM`, which Linux gives in KiB).
fn peak_bytes() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("status has no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}
