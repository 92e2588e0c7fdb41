//! Images as the OCI specifications have them: names, credentials, registries.

pub mod credentials;
pub mod reference;
pub mod registry;

pub use credentials::{Credential, Credentials};
pub use reference::{Reference, ReferenceError};
