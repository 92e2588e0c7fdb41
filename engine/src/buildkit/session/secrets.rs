//! `moby.buildkit.secrets.v1.Secrets`: the job's secrets, by name.
//!
//! For a name that is not offered the answer is [`NotFound`](tonic::Code::NotFound), which a daemon
//! takes as "no such secret" where the mount is optional (`session/secrets/secrets.go`).

use std::collections::BTreeMap;

use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

/// Daemons refuse larger ones (`session/secrets/secretsprovider`).
const LIMIT_BYTES: usize = 500 * 1024;

/// Answers from the job's secrets.
pub(super) struct Secrets(BTreeMap<String, Vec<u8>>);

impl Secrets {
    pub(super) fn new(secrets: BTreeMap<String, Vec<u8>>) -> Self {
        Self(secrets)
    }
}

#[async_trait::async_trait]
impl secrets_server::Secrets for Secrets {
    async fn get_secret(&self, request: Request<GetSecretRequest>) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let data = self.0.get(&id).ok_or_else(|| Status::not_found(format!("secret {id:?} is not offered")))?;
        if data.len() > LIMIT_BYTES {
            return Err(Status::invalid_argument(format!("secret {id:?} has more than {LIMIT_BYTES} bytes")));
        }
        Ok(Response::new(GetSecretResponse { data: data.clone() }))
    }
}
