//! `roche contents`: what an image contains, wherever it is.
//!
//! 1. [`open`] finds the image: a file, an engine's store, a registry.
//! 2. The engine reads its layers, [`examine`] judges what it finds.
//! 3. [`programs`] knows what the programs in it were made of.
//! 4. [`text`] or [`json`] shows it.
//!
//! Invariant: nothing that an image's author wrote reaches the terminal unescaped, and the value of what looks like a secret is
//! never shown.

mod config;
mod examine;
mod json;
mod open;
mod programs;
mod text;

use roche_engine::oci::contents::{Contents, Limits, OpenImage, read};

use crate::args::ContentsArgs;
use crate::columns;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use config::Settings;
use examine::{Finding, Looks, Owners};
pub(crate) use json::file_fields;
use open::{Held, open};
pub(crate) use programs::Program;
pub(crate) use text::{letters, owner};

/// An image that was read.
pub(crate) struct Examined {
    /// What it was called.
    pub(crate) name: String,
    /// Where it was.
    pub(crate) found_in: String,
    pub(crate) image: OpenImage,
    pub(crate) settings: Settings,
    pub(crate) contents: Contents,
    pub(crate) owners: Owners,
    pub(crate) findings: Vec<Finding>,
    /// What it shows that says what it was made of.
    pub(crate) programs: Vec<Program>,
}

/// Shows what an image contains.
pub(crate) async fn run(args: &ContentsArgs, environment: &Environment) -> Result<(), Failure> {
    let examined = examined(&args.image, args.platform.as_deref(), environment).await?;
    let count = examined.image.layers.len();
    if let Some(layer) = args.layer.filter(|layer| *layer == 0 || *layer > count) {
        return Err(Failure::say(Exit::Usage, format!("{} has no layer {layer}: it has {count}", examined.name))
            .hint("layers are counted from 1, the lowest"));
    }
    let shown = if args.json {
        json::render(&examined, args.layer)
    } else if args.quiet {
        text::paths(&examined, args.layer)
    } else {
        text::render(&examined, args, columns::width(environment))
    };
    crate::write_stdout(shown.as_bytes())
}

/// Finds and reads an image.
pub(crate) async fn examined(
    image: &std::ffi::OsStr,
    platform: Option<&str>,
    environment: &Environment,
) -> Result<Examined, Failure> {
    let Held { name, found_in, image, kept: _kept } = open(image, platform, environment).await?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut looks = Looks::default();
        let contents = read(&image, Limits::default(), &mut looks)?;
        Ok((image, contents, looks))
    });
    let read = reading.await.map_err(|_| Failure::say(Exit::Resource, "reading the image broke off"))?;
    let (image, contents, looks) = read.map_err(open::failure)?;
    let settings = Settings::read(&image.config_bytes);
    let owners = looks.owners(&contents);
    let findings = examine::findings(&contents, &settings, &image.config, &looks);
    let programs = looks.programs.shown(&contents);
    Ok(Examined { name, found_in, image, settings, contents, owners, findings, programs })
}
