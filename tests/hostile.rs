//! Steps that try to get out: each attack of `tests/fixtures/hostile`, as root and as an ordinary
//! user with one id, is refused, or seen to stay inside.
//!
//! A canary is kept outside: a folder that everybody may write, a port and an abstract socket that
//! answer, a process of the attacker's own user, and what the machine says of itself in `/proc` and
//! `/sys`. Red when an attack does what it should not, or the canary has changed.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::harness::{Campaign, Ended, Site, cells, fixture, mebibytes, unique};

/// The build image's cargo: the attack stands in the function's first line.
const CARGO: &str = "[ \"$1\" = build ] || exit 0
set -- $(sed -n 's,^// attack: ,,p' src/app/functions.rs src/functions.rs 2>/dev/null)
hostile \"$@\" || echo \"hostile: $1 ended with $?\"
exec build-service";

const PATIENCE: Duration = Duration::from_secs(120);

/// The most memory that the program may hold, whatever a step prints.
const MOST_MEMORY: u64 = mebibytes(256);

/// What no image may hold.
const SECRET: &str = "a secret of the machine";

/// What may come of an attack.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The kernel, or the step's surroundings, say no.
    Refused,
    /// It sees or does what is its own alone, in these words.
    Seen(&'static str),
    /// It is done, and stays inside.
    Inside,
}

use Outcome::{Inside, Refused, Seen};

/// What comes of each attack; two outcomes where users differ.
fn expected(attack: &str) -> &'static [Outcome] {
    match attack {
        "fork_bomb" => &[Seen("bounded at EAGAIN")],
        "double_fork" | "daemon_session" | "stopped_child" => &[Inside],
        "kill_all" | "see_processes" => &[Seen("only its own")],
        "in_32_bits" => &[Seen("killed")],
        "interfaces" => &[Seen("loopback alone")],
        // With one id there is no other to become.
        "setuid_program" => &[Seen("no other user"), Refused],
        "huge_output" => &[Seen("read to its end")],
        "service_link" | "target_link" => &[Inside],
        _ => &[Refused],
    }
}

/// What stands outside, and must stay as it is.
struct Canary {
    folder: TempDir,
    port: TcpListener,
    socket: UnixListener,
    name: String,
    sentinel: Child,
    before: BTreeMap<String, String>,
    offset: f64,
}

impl Canary {
    fn new(user: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("secret", SECRET), ("touched-not", "")] {
            fs::write(folder.path().join(name), text).unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o666)).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let name = unique();
        let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        port.set_nonblocking(true).unwrap();
        let sentinel = Command::new("sleep").arg("3600").stdin(Stdio::null()).uid(user).gid(user).spawn().unwrap();
        let before = machine(folder.path());
        Self { folder, port, socket, name, sentinel, before, offset: offset() }
    }

    /// What the attack is told.
    fn arguments(&self) -> String {
        format!("{} {} {}", self.folder.path().display(), self.port.local_addr().unwrap().port(), self.name)
    }

    /// Fails the test where anything outside is not as it was.
    fn check(&mut self) {
        let after = machine(self.folder.path());
        let changed: Vec<_> = self.before.iter().filter(|(what, value)| after.get(*what) != Some(value)).collect();
        assert!(changed.is_empty() && after.len() == self.before.len(), "changed: {changed:?}; now {after:?}");
        assert!(self.port.accept().is_err(), "the machine's port was reached");
        assert!(self.socket.accept().is_err(), "the machine's abstract socket was reached");
        assert!(self.sentinel.try_wait().unwrap().is_none(), "a process outside was ended");
        assert!((offset() - self.offset).abs() < 5.0, "the clock was set");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}

/// What the machine says of itself, and the canary's files.
fn machine(canary: &Path) -> BTreeMap<String, String> {
    let sys = ["hostname", "domainname", "core_pattern", "panic", "pid_max", "sysrq", "modprobe", "tainted", "printk"];
    let mut said: BTreeMap<String, String> = sys
        .iter()
        .map(|name| format!("/proc/sys/kernel/{name}"))
        .map(|path| (fs::read_to_string(&path).unwrap_or_default(), path))
        .map(|(text, path)| (path, text))
        .collect();
    for path in ["/proc/swaps", "/sys/kernel/uevent_helper", "/sys/class/net/lo/mtu", "/proc/modules"] {
        // Counters of use are the machine's own business.
        let text = fs::read_to_string(path).unwrap_or_default();
        said.insert(path.into(), text.lines().filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join(" "));
    }
    for folder in [Path::new("/dev"), Path::new("/sys/fs/cgroup"), Path::new("/"), canary] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        said.insert(format!("names in {}", folder.display()), names.join(" "));
    }
    for entry in fs::read_dir(canary).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        let about = format!("{:o} {} {} {:?}", meta.mode(), meta.uid(), meta.mtime(), fs::read(entry.path()).unwrap());
        said.insert(entry.path().display().to_string(), about);
    }
    said
}

/// How far the wall clock is ahead of the time since the start of the machine, in seconds.
fn offset() -> f64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() - uptime
}

/// Compiles the attacks; returns their names, as the program itself lists them.
fn compile(into: &Path) -> Vec<String> {
    let program = into.join("hostile");
    let compiled = Command::new("gcc")
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(fixture("hostile/hostile.c"))
        .output()
        .expect("gcc runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let listed = Command::new(&program).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Whether a layer of an archive holds a text.
fn holds(archive: &Path, text: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let script = "tar -xf \"$1\" && for blob in blobs/sha256/*; do
        if gzip -t <\"$blob\" 2>/dev/null; then gzip -dc <\"$blob\"; else cat \"$blob\"; fi; done | grep -qaF -e \"$2\"";
    let line = [Path::new("-c"), Path::new(script), Path::new("-"), archive, Path::new(text)];
    Command::new("bash").args(line).current_dir(folder.path()).status().unwrap().success()
}

/// What the attack said of itself, in the step's log.
fn said(ended: &Ended, attack: &str) -> String {
    let start = format!("hostile: {attack} ");
    let line = ended.stderr.lines().find_map(|line| line.split_once(&start).map(|(_, rest)| rest.trim().to_owned()));
    line.unwrap_or_else(|| panic!("the attack said nothing\n{}", ended.story()))
}

#[test]
fn a_hostile_step_stays_inside() {
    let tools = tempfile::tempdir().unwrap();
    let attacks = compile(tools.path());
    let site = Site::with_files(CARGO, |root| {
        for (name, mode) in [("hostile", 0o755), ("set-uid", 0o4755)] {
            let copy = root.join("usr/local/bin").join(name);
            fs::copy(tools.path().join("hostile"), &copy).unwrap();
            fs::set_permissions(copy, fs::Permissions::from_mode(mode)).unwrap();
        }
    });
    let stands = [(0, "root"), (65534, "user")].map(|(user, name)| {
        let stand = site.stand(name);
        stand.give(user);
        (user, name, stand)
    });
    let mut campaign = Campaign::start("hostile steps");
    let mut random = campaign.random();
    let sample = cells(10, attacks.len());
    let mut drawn: Vec<&String> = attacks.iter().collect();
    for i in (1..drawn.len()).rev() {
        drawn.swap(i, random.below(i as u64 + 1) as usize);
    }
    for attack in drawn.into_iter().take(sample) {
        for (user, name, stand) in &stands {
            campaign.cell(format!("{attack} as {name}"), |_| {
                let mut canary = Canary::new(*user);
                let function = format!("// attack: {attack} {}\npub fn handler() {{}}\n", canary.arguments());
                site.write("functions.rs", &function);
                let call = site.release(stand).args(["--progress", "plain"]).user(*user);
                let ended = call.within(PATIENCE).run();
                canary.check();
                assert!(ended.peak_memory_bytes < MOST_MEMORY, "{} MiB", ended.peak_memory_bytes >> 20);
                let said = said(&ended, attack);
                let good = expected(attack).iter().any(|outcome| match outcome {
                    Refused => said.starts_with("refused "),
                    Seen(text) => said == format!("seen {text}"),
                    Inside => said == "done",
                });
                assert!(good, "{said}, and not {:?}\n{}", expected(attack), ended.story());
                if ended.status.code() == Some(0) {
                    assert!(!holds(&stand.archive(), SECRET), "the secret is in the image");
                    assert!(holds(&stand.archive(), "exec ./roche-service"), "the image was not searched");
                }
                site.nothing_is_left(stand);
                said
            });
        }
    }
    for (user, _, stand) in &stands {
        site.verify(stand, Some(*user));
    }
    campaign.finish();
}
