//! Times and memory of commands, and the table that they are printed in.
//!
//! Invariant: a command's memory is that of all its processes together, read while they run; its CPU
//! seconds are those of the whole machine, because steps run in the daemons' containers.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the memory of a command's processes is read.
const SAMPLE: Duration = Duration::from_millis(10);

/// What a command, or a phase of one, took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    /// Seconds.
    pub(crate) wall: f64,
    /// Seconds of all processors.
    pub(crate) cpu: f64,
    /// The most that its processes held at once; 0 where they are a daemon's.
    pub(crate) peak_bytes: u64,
}

/// A command that has ended well.
pub(crate) struct Done {
    pub(crate) cost: Cost,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Returns what the last phase of a name took, as `solve` prints it.
    pub(crate) fn phase(&self, name: &str) -> Cost {
        let line = self.stdout.lines().rev().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("there is no phase {name} in:\n{}", self.stdout));
        let mut numbers = line.split_whitespace().map(|number| number.parse().expect("it is a number"));
        let mut next = || numbers.next().expect("a phase has two numbers");
        Cost { wall: next(), cpu: next(), peak_bytes: self.cost.peak_bytes }
    }
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn timed(command: &mut Command) -> Done {
    attempted(command).unwrap_or_else(|said| panic!("{command:?}: {said}"))
}

/// Runs a command to its end; one that fails gives what it said.
pub(crate) fn attempted(command: &mut Command) -> Result<Done, String> {
    let (cpu, start) = (machine_cpu(), Instant::now());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let ended = AtomicBool::new(false);
    let (output, wall, peak_bytes) = std::thread::scope(|scope| {
        let (pid, ended) = (child.id(), &ended);
        let sampler = scope.spawn(move || watched(pid, ended));
        let output = child.wait_with_output().expect("the command is a child of this process");
        let wall = start.elapsed().as_secs_f64();
        ended.store(true, Ordering::Relaxed);
        (output, wall, sampler.join().expect("the sampler does not panic"))
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() {
        return Err(format!("{}\n{stderr}", output.status));
    }
    Ok(Done { cost: Cost { wall, cpu: machine_cpu() - cpu, peak_bytes }, stdout, stderr })
}

/// Runs each command in turn, `runs` times and once uncounted, and returns the medians. What one has
/// left to be written to the disk is not the next one's.
pub(crate) fn in_turn<const N: usize>(runs: usize, mut commands: [&mut dyn FnMut() -> Cost; N]) -> [Cost; N] {
    let mut costs: [Vec<Cost>; N] = std::array::from_fn(|_| Vec::new());
    for run in 0..=runs {
        for (command, costs) in commands.iter_mut().zip(&mut costs) {
            timed(&mut Command::new("sync"));
            let cost = command();
            if run > 0 {
                costs.push(cost);
            }
        }
    }
    costs.map(|costs| median(&costs))
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost {
        wall: middle(|cost| cost.wall),
        cpu: middle(|cost| cost.cpu),
        // Of memory the most counts.
        peak_bytes: costs.iter().map(|cost| cost.peak_bytes).max().unwrap_or_default(),
    }
}

/// Prints the head of a part's table.
pub(crate) fn head(part: &str) {
    println!("\n{part}");
    println!("    {:34} {:>9} {:>8} {:>8}  ratio or figure, aim", "", "wall", "CPU", "peak");
}

/// Prints a row.
pub(crate) fn row(name: &str, cost: Cost, figure: &str) {
    let peak = if cost.peak_bytes == 0 { "-".to_owned() } else { format!("{} MB", cost.peak_bytes / 1_000_000) };
    println!("    {name:34} {:7.3} s {:6.2} s {peak:>8}  {figure}", cost.wall, cost.cpu);
}

/// Seconds that the machine's processors were busy since it started (`/proc/stat`).
pub(crate) fn machine_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat can be read");
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, irq, softirq, in hundredths of a second; idle and iowait are not work.
    [0, 1, 2, 5, 6].iter().map(|&i| fields[i]).sum::<u64>() as f64 / 100.0
}

/// Reads the memory of a process and all below it until it has `ended`; returns the most.
fn watched(pid: u32, ended: &AtomicBool) -> u64 {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        most = most.max(memory(pid));
        std::thread::sleep(SAMPLE);
    }
    most
}

/// Returns what a process and all below it hold; what has ended meanwhile holds nothing.
fn memory(pid: u32) -> u64 {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let own = read("status").lines().find_map(|line| {
        let kilobytes: u64 = line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kilobytes * 1024)
    });
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let below = children.flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>());
    own.unwrap_or_default() + below.map(memory).sum::<u64>()
}
