//! Images as the OCI specifications have them: names, credentials, registries.

pub mod credentials;
pub mod reference;
pub mod registry;

pub use credentials::{Credential, CredentialFiles, Credentials, DockerCredentials, Login};
pub use reference::{Reference, ReferenceError};
pub use registry::{Registry, RegistryOptions};
