//! Workers: processes that do everything that touches the content of layers.
//!
//! A worker is the engine's own program started again ([`main_if_worker`]), in a user namespace and a
//! mount namespace of its own. [`Workers::spawn`] starts one and maps its ids; it does one [`Work`],
//! gives one [`Answer`] and is gone.
//!
//! Invariant: the engine's own process never enters a namespace and never opens what is in a layer;
//! a worker serves one task and leaves nothing behind but what the task names.

mod changes;
mod exec;
mod flatten;
mod inside;
mod keeper;
mod mounting;
mod overlay;
mod perform;
mod probe;
mod process;
mod protocol;
mod spawn;
mod stage;
#[cfg(test)]
mod tests;

pub use keeper::main_if_worker;
pub use protocol::Refusal;
pub(crate) use protocol::{
    Answer, Ended, Exec, Failure, Files, HostEntry, HostNode, Input, Mount, Network, Source, Ulimit, Upper, Work,
};
pub(crate) use spawn::Workers;
