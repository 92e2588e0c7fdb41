//! The suite that runs the program against real daemons, as its users do.
//!
//! It knows the contract alone: command line in, streams, exit code, images and
//! files out. [`harness`] starts the program without anything of the machine's
//! environment and reads what the daemons hold; the other modules are the tests,
//! one theme each, and their headers say what has to break for them to fail.
//!
//! Daemons, registry and images come from `tests/setup`; `tests/run` starts
//! them. A daemon that is missing fails the tests that need it: none is skipped.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test's panic is its report")]

mod harness;

mod accepted;
mod bad_input;
mod bill;
mod cli;
mod contents;
mod crowd;
mod daemon;
mod dockerfile;
mod embedded;
mod explain;
mod failures;
mod forecast;
mod forms;
mod fresh;
mod full;
mod gained;
mod hostile;
mod kills;
mod lock;
mod login;
mod outputs;
mod page;
mod plan;
mod progress;
mod proxies;
mod record;
mod registry;
mod release;
mod scenarios;
mod secrets;
mod standalone;
mod tutorial;
mod verify;
