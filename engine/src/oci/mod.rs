//! Images as the OCI specifications have them: names, documents, layers, layouts, registries.
//!
//! - [`reference`] and [`credentials`]: what images are called and who may read them.
//! - [`descriptor`], [`document`], [`image`]: what they are made of.
//! - [`compress`] and [`decompress`]: layers as blobs and back, [`hashing`] while they pass.
//! - [`layer`]: what layers contain, [`contents`] what an image does.
//! - [`layout`], [`archive`], [`docker_archive`]: images as folders and files, [`place`] where these go.
//! - [`registry`]: images on other machines.

pub mod archive;
pub mod compress;
pub mod contents;
pub mod credentials;
pub mod decompress;
pub mod descriptor;
pub mod docker_archive;
pub mod document;
pub mod hashing;
pub mod image;
pub mod layer;
pub mod layout;
pub mod place;
pub mod reference;
pub mod registry;

pub use compress::{Compressed, Compression, compress};
pub use credentials::{Credential, CredentialFiles, Credentials, DockerCredentials, Login};
pub use decompress::{Decompressor, Limits};
pub use descriptor::Descriptor;
pub use document::{Document, DocumentError, Index, Manifest};
pub use hashing::Hashing;
pub use image::{Blob, Blobs, Config, Image, Layer};
pub use layout::{Layout, Named};
pub use reference::{Reference, ReferenceError};
pub use registry::{Configs, Proxies, ProxyAddress, Registry, RegistryOptions, Repository};
