//! Which code does which work.

use super::protocol::{Answer, Doing, Failure, Task, Work};
use super::{changes, exec, probe};

/// Does a task; the process is alone in its user, mount and PID namespaces.
pub(super) fn perform(task: &Task) -> Result<Answer, Failure> {
    match &task.work {
        Work::Exec(step) => exec::run(task, step).map(Answer::Exec),
        Work::Files(actions) => changes::files(task, actions),
        Work::Unpack { into, below } => changes::unpack_layer(task, into, below),
        Work::Pack { layers, merged, without, latest_s } => {
            changes::pack_layers(task, layers, *merged, without.as_deref(), *latest_s)
        }
        Work::Probe => probe::run(task).map(Answer::Probe),
        Work::Remove { paths } => remove(task, paths),
    }
}

/// Removes folders whoever owns what is in them; links are not followed.
fn remove(task: &Task, paths: &[String]) -> Result<Answer, Failure> {
    rustix::process::chdir(&task.root).doing(|| format!("entering {}", task.root.display()))?;
    for path in paths {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io(format!("removing {path}"), error));
            }
            _ => {}
        }
    }
    Ok(Answer::Done)
}
