//! `moby.filesync.v1.Auth`: credentials for registries, one host at a time.
//!
//! Tokens are the daemon's affair: to [`Unavailable`](tonic::Code::Unavailable) for the token
//! authority it answers by asking for the credentials themselves (`session/auth/auth.go`).

use std::sync::Arc;

use bollard_buildkit_proto::moby::filesync::v1::auth_server;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

use super::Failure;
use crate::oci::Credentials;

/// Answers from the job's credentials.
pub(super) struct Auth {
    credentials: Option<Arc<dyn Credentials>>,
    failure: Failure,
}

impl Auth {
    pub(super) fn new(credentials: Option<Arc<dyn Credentials>>, failure: Failure) -> Self {
        Self { credentials, failure }
    }
}

const NO_TOKENS: &str = "tokens are not made on this side";

#[async_trait::async_trait]
impl auth_server::Auth for Auth {
    /// Answers with nothing, which means "anonymous", where no credentials are known.
    async fn credentials(&self, request: Request<CredentialsRequest>) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let found = match &self.credentials {
            Some(credentials) => credentials.find(registry(&host)).await.map_err(|error| self.failure.record(error))?,
            None => None,
        };
        let response = found
            .map(|credential| CredentialsResponse { username: credential.username, secret: credential.secret })
            .unwrap_or_default();
        Ok(Response::new(response))
    }

    async fn fetch_token(&self, _: Request<FetchTokenRequest>) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unavailable(NO_TOKENS))
    }
}

/// Returns the name that credentials are kept under: Docker Hub's hosts are `docker.io`.
fn registry(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" => "docker.io",
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_hub_has_one_name() {
        assert_eq!(registry("registry-1.docker.io"), "docker.io");
        assert_eq!(registry("index.docker.io"), "docker.io");
        assert_eq!(registry("registry-1.docker.io.example.com"), "registry-1.docker.io.example.com");
        assert_eq!(registry("127.0.0.1:5000"), "127.0.0.1:5000");
    }
}
