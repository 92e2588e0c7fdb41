//! The service that a function is compiled into.
//!
//! Thin on purpose: an edit of the function compiles this crate alone. What a
//! server needs beyond the function is machine code in `roche-runtime` already.
//!
//! `src/functions.rs` is a symbolic link to `app/functions.rs`. A file put at
//! either place is the function, and a `lib.rs` here may say `mod functions`.

mod functions;

fn main() -> std::process::ExitCode {
    roche_runtime::serve(functions::handler)
}
