//! The command line's grammar.
//!
//! Invariant: nothing is read here but the arguments. Settings that also have an environment
//! name or a place in `.rocherc` stay `Option`s, and are resolved in one place: the frontend's
//! `release` module.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const ABOUT: &str = "Releases Rust functions as container images, and shows what will be in them";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 a build step failed, 2 usage, 3 project, 4 configuration, 5 no back end,
6 the daemon failed, 8 registry, 9 integrity, 10 resources, 11 policy, 75 try again, 130/143 cancelled";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "roche", version, about = ABOUT, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Release the function in this folder as an image
    Release(Box<ReleaseArgs>),
    /// Release twice from nothing, and say whether the two are the same
    Verify(Box<VerifyArgs>),
    /// Write the digests of the images that releases stand on to roche.lock
    Lock(LockArgs),
    /// Write a function that builds
    Init(InitArgs),
    /// Make a build image: a Rust toolchain image with the service template compiled into it
    Prepare(Box<PrepareArgs>),
    /// Show what an image contains: files, layers, rights, wasted room, secrets
    Contents(ContentsArgs),
    /// Show how two images differ: files, sizes, config, layers
    Diff(DiffArgs),
    /// List this project's releases, the newest first
    History(HistoryArgs),
    /// Say why the last release differs from the one before: what changed, and what merely followed
    Explain(ExplainArgs),
    /// List, count, remove or check what the embedded engine keeps between builds
    #[cfg(target_os = "linux")]
    Cache(CacheArgs),
    /// Say which back ends are here, what each can do, and how to mend what is missing
    #[cfg(target_os = "linux")]
    Doctor,
    #[command(hide = true, disable_help_flag = true)]
    Build(ReplacedArgs),
    #[command(hide = true, disable_help_flag = true)]
    Gen(ReplacedArgs),
}

/// What `build` and `gen` of older versions are given; it only matters which of the two it was.
#[derive(Debug, Args)]
pub(crate) struct ReplacedArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) rest: Vec<OsString>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct ReleaseArgs {
    /// Image to compile in: a Rust toolchain with the service under /app-build (`roche prepare`
    /// makes one); or `host`: this machine's own toolchain, with the embedded engine
    /// [env: release_build_image] [.rocherc: release_build_image]
    /// [default: quay.io/roche/default:1.0.0 on a daemon, host on the embedded engine]
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) buildimage: Option<String>,

    /// Image that the service runs in, or `scratch` [env: runtime_image]
    /// [.rocherc: runtime_image] [default: quay.io/roche/alpine:3.12; scratch with -b host]
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) runtime: Option<String>,

    /// Name of the released image; can be repeated [default: LOGIN/FOLDER, from the registry
    /// that you are logged in to] [env for LOGIN: DOCKER_USERNAME]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,

    /// Label for the image's config; can be repeated [default: the runtime image's labels]
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,

    /// How the service is started: `script` is ./run.sh, `direct` is /app/roche-service
    /// [default: script; direct on scratch]
    #[arg(long, value_name = "HOW")]
    pub(crate) entrypoint: Option<String>,

    /// Put this machine's time zones into an image that stands on nothing (-b host -r scratch)
    /// [default: no]
    #[arg(long)]
    pub(crate) tzdata: bool,

    /// Write what the program was made of to a file: spdx=FILE or cyclonedx=FILE; can be repeated
    /// [env for the time in it: SOURCE_DATE_EPOCH] [default: none]
    #[arg(long, value_name = "FORM=FILE", help_heading = "Output")]
    pub(crate) sbom: Vec<OsString>,

    /// Show the plan on standard output and build nothing: text, json, dot, mermaid, html, llb or
    /// dockerfile [default without a value: text]
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text")]
    pub(crate) dry_run: Option<Form>,

    #[command(flatten)]
    pub(crate) pins: PinArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) solve: SolveArgs,

    /// Run no step: where a result is not in the cache, nothing is made and the exit code is 11
    /// [default: no]
    #[arg(long, help_heading = "Building", conflicts_with_all = ["no_cache", "dry_run"])]
    pub(crate) require_cached: bool,
}

/// What may be asked for, and what has to be locked.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PinArgs {
    /// Fail where roche.lock has not every image [default: no]
    #[arg(long, help_heading = "Building", conflicts_with = "pull")]
    pub(crate) locked: bool,

    /// Ask no registry, neither for images nor for crates [default: no]
    #[arg(long, help_heading = "Building", conflicts_with = "pull")]
    pub(crate) offline: bool,

    /// Both: --locked and --offline [default: no]
    #[arg(long, help_heading = "Building", conflicts_with = "pull")]
    pub(crate) frozen: bool,
}

/// What is released and where it is built, as for a release; nothing is kept of it.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Image to compile in, as for `roche release`
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) buildimage: Option<String>,

    /// Image that the service runs in, as for `roche release`
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) runtime: Option<String>,

    /// Name of the image, as for `roche release`; it is no part of the digest [default: verify]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,

    /// Label for the image's config, as for `roche release`
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Vec<String>,

    /// How the service is started, as for `roche release`
    #[arg(long, value_name = "HOW")]
    pub(crate) entrypoint: Option<String>,

    /// Put this machine's time zones into the image, as for `roche release`
    #[arg(long)]
    pub(crate) tzdata: bool,

    /// Print nothing but the digest; what differs is still said [default: no]
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// How progress is shown, as for `roche release`
    #[arg(long, value_name = "HOW", help_heading = "Output")]
    pub(crate) progress: Option<ProgressMode>,

    #[command(flatten)]
    pub(crate) pins: PinArgs,

    #[command(flatten)]
    pub(crate) solve: SolveArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Ask for every image again, and forget those that the release no longer names [default: no]
    #[arg(long)]
    pub(crate) update: bool,

    /// Image to compile in, as for `roche release`
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) buildimage: Option<String>,

    /// Image that the service runs in, as for `roche release`
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) runtime: Option<String>,

    /// Platform to lock for [default: linux on this machine's architecture; with --update all that
    /// are locked too]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// BuildKit daemon that is asked, as for `roche release`
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) addr: Option<String>,

    /// Builder that is asked, as for `roche release`
    #[arg(long, value_name = "NAME", conflicts_with = "addr")]
    pub(crate) builder: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PrepareArgs {
    /// Image with a Rust toolchain (cargo, rustc, a linker, a shell)
    #[arg(long, value_name = "IMAGE")]
    pub(crate) from: String,

    /// Name of the build image; can be repeated
    #[arg(short, long, value_name = "NAME[:TAG]", required = true)]
    pub(crate) tag: Vec<String>,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) solve: SolveArgs,
}

/// Where a result goes, and what is written about it.
#[derive(Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Where the image goes: type=docker|oci|image|registry|local|tar,dest=PATH; PATH or `-` alone
    /// is a folder (devices are left out) or a tar; can be repeated [default: the daemon's own
    /// image store; ./FOLDER.oci.tar where it has none]
    #[arg(short, long, value_name = "OUTPUT", help_heading = "Output")]
    pub(crate) output: Vec<OsString>,

    /// Push the image to the registries that its names say, as `-o type=registry`
    /// [default: no]
    #[arg(long, help_heading = "Output")]
    pub(crate) push: bool,

    /// Put the image into the daemon's own store, as `-o type=docker` [default: yes, where there
    /// is one and no other output is named]
    #[arg(long, help_heading = "Output")]
    pub(crate) load: bool,

    /// Write the image's digests and names to this file, as JSON [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Write the image's digest to this file [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write when each step ran to this file, in Chrome's trace format, which ui.perfetto.dev opens
    /// [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) trace: Option<PathBuf>,

    /// Print nothing but the digest; what went wrong is still said [default: no]
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// How progress is shown: auto, tty, plain, rawjson or quiet [env: BUILDKIT_PROGRESS;
    /// colour: NO_COLOR, CLICOLOR_FORCE] [default: auto]
    #[arg(long, value_name = "HOW", help_heading = "Output")]
    pub(crate) progress: Option<ProgressMode>,
}

/// Where and how it is built.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SolveArgs {
    /// BuildKit daemon: unix:///path or tcp://host:port [env: BUILDKIT_HOST]
    /// [default: the docker daemon of DOCKER_HOST, DOCKER_CONTEXT, the current docker context,
    /// or the default sockets; the embedded engine where there is none]
    #[arg(long, value_name = "ADDRESS", help_heading = "Building")]
    pub(crate) addr: Option<String>,

    /// A docker context or a buildx builder, by name, or `embedded`: the engine of this program, which
    /// needs no daemon (Linux) [env: BUILDX_BUILDER] [default: none]
    #[arg(long, value_name = "NAME", conflicts_with = "addr", help_heading = "Building")]
    pub(crate) builder: Option<String>,

    /// CA certificate that the daemon at --addr or BUILDKIT_HOST is checked with
    /// [default: none, and no TLS]
    #[arg(long, value_name = "FILE", help_heading = "Building")]
    pub(crate) tlscacert: Option<PathBuf>,

    /// Certificate shown to the daemon at --addr or BUILDKIT_HOST [default: none]
    #[arg(long, value_name = "FILE", requires = "tlskey", help_heading = "Building")]
    pub(crate) tlscert: Option<PathBuf>,

    /// Key of --tlscert [default: none]
    #[arg(long, value_name = "FILE", requires = "tlscert", help_heading = "Building")]
    pub(crate) tlskey: Option<PathBuf>,

    /// Platform to build for [default: linux on this machine's architecture]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", help_heading = "Building")]
    pub(crate) platform: Option<String>,

    /// Run every step again [default: no]
    #[arg(long, help_heading = "Building")]
    pub(crate) no_cache: bool,

    /// Ask the registries for newer base images [default: no]
    #[arg(long, help_heading = "Building")]
    pub(crate) pull: bool,

    /// Take results from a cache: type=registry,ref=NAME; can be repeated [default: none]
    #[arg(long, value_name = "CACHE", help_heading = "Building")]
    pub(crate) cache_from: Vec<String>,

    /// Write results to a cache: type=registry,ref=NAME[,mode=max] or type=inline; can be
    /// repeated [default: none]
    #[arg(long, value_name = "CACHE", help_heading = "Building")]
    pub(crate) cache_to: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Folder to make; without it functions.rs is written into the current folder
    pub(crate) name: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ContentsArgs {
    /// A docker or OCI archive, an OCI layout's folder, oci-layout://FOLDER[:TAG][@DIGEST], or the
    /// name of an image: of docker's or podman's store, else of its registry
    #[arg(value_name = "IMAGE|PATH")]
    pub(crate) image: OsString,

    /// Which of an image's platforms [default: linux on this machine's architecture]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// Show every file, however deep, and every line of every list
    #[arg(long)]
    pub(crate) all: bool,

    /// Show the tree down to this depth
    #[arg(long, value_name = "NUMBER", default_value_t = 1, conflicts_with = "all")]
    pub(crate) depth: usize,

    /// Show what one layer has by itself, counted from 1, the lowest
    #[arg(long, value_name = "NUMBER")]
    pub(crate) layer: Option<usize>,

    /// Write everything as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Write nothing but the paths, one a line
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The one image: a path or a name, as `roche contents` takes them
    #[arg(value_name = "OLD")]
    pub(crate) old: OsString,

    /// The other
    #[arg(value_name = "NEW")]
    pub(crate) new: OsString,

    /// Which of the images' platforms [default: linux on this machine's architecture]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// Show every file of folders that came or went
    #[arg(long)]
    pub(crate) all: bool,

    /// Write everything as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// End with exit code 1 where there is a difference [default: 0, as without one]
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// List the releases of every project
    #[arg(long)]
    pub(crate) all: bool,

    /// Write everything as JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Write nothing but the ids, one a line
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Releases as `roche history` lists them: one is explained against the one before it, of two the
    /// second against the first [default: the last one]
    #[arg(value_name = "ID", num_args = 0..=2)]
    pub(crate) ids: Vec<String>,

    /// Write everything as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[cfg(target_os = "linux")]
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List everything that takes room, the last used last
    Ls,
    /// Say how much room is taken
    Du,
    /// Remove what no running build uses, the least recently used first
    Prune(PruneArgs),
    /// Read everything, and say what is not as it was stored
    Verify {
        /// Drop what is damaged; it is made or fetched again [default: no]
        #[arg(long)]
        repair: bool,
    },
}

#[cfg(target_os = "linux")]
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Leave this much, of what was used last: 10GB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = crate::cache::parse_size)]
    pub(crate) keep_storage: u64,

    /// Leave what was used within this time: 48h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::cache::parse_duration)]
    pub(crate) keep_duration: std::time::Duration,
}

/// The forms of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For graphviz.
    Dot,
    /// For Markdown on GitHub.
    Mermaid,
    /// A page for browsers.
    Html,
    /// The definition's bytes, as `buildctl build` takes them.
    Llb,
    /// A Dockerfile that gives the same files.
    Dockerfile,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// Live, one line a vertex.
    Tty,
    /// Line by line.
    Plain,
    /// BuildKit's status messages, one JSON object a line.
    Rawjson,
    /// Not at all.
    Quiet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_commands_take_whatever_they_were_given() {
        for word in ["--help", "-h", "--tag=x", "x"] {
            let cli = Cli::try_parse_from(["roche", "build", word]).unwrap();
            assert!(matches!(cli.command, Command::Build(args) if args.rest == [word]), "{word}");
        }
    }

    #[test]
    fn one_back_end_is_named() {
        let both = ["roche", "release", "--builder", "b", "--addr", "unix:///x"];
        assert!(Cli::try_parse_from(both).is_err());
        assert!(Cli::try_parse_from(&both[..4]).is_ok());
    }
}
